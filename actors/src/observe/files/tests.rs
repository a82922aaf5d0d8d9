//! Files in, objects and faults out.

use std::path::Path;

use super::*;

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: edge}\n\
                       spec: {gatewayClassName: c, listeners: [{name: http, port: 80, protocol: HTTP}]}\n";
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: shop}\nspec: {ports: [{port: 80}]}\n";

/// Accepts all but objects that are called `refused`.
fn admit() -> Admit {
    Arc::new(|object| {
        Box::pin(async move {
            if object["metadata"]["labels"]["refuse"] == "yes" {
                return Err("spec.ports: too odd".to_owned());
            }
            Ok(object)
        })
    })
}

fn args(folder: &Path) -> Args {
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Proxy);
    Args {
        paths: vec![folder.to_owned()],
        admit: admit(),
        stores: Stores::new(kinds),
        faults: watch::Sender::default(),
    }
}

/// What reading gives: names of objects, and faults.
async fn read(memory: &mut Memory, args: &Args) -> Option<(Vec<String>, Vec<String>)> {
    let reading = memory.read(args).await?;
    let faults = reading.faults.iter().map(ToString::to_string).collect();
    Some((reading.objects.keys().map(ToString::to_string).collect(), faults))
}

#[tokio::test]
async fn a_bad_object_is_named_with_file_and_field_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let args = args(folder.path());
    let mut memory = Memory::default();
    std::fs::write(&file, format!("{GATEWAY}---\n{SERVICE}")).unwrap();
    let (objects, faults) = read(&mut memory, &args).await.unwrap();
    assert_eq!(objects, ["Gateway default/edge", "Service default/shop"]);
    assert!(faults.is_empty(), "{faults:?}");
    assert!(read(&mut memory, &args).await.is_none(), "nothing has changed");

    let refused = SERVICE.replace("name: shop", "name: shop, labels: {refuse: 'yes'}");
    std::fs::write(&file, format!("{refused}---\nkind: Cake\n")).unwrap();
    let (objects, faults) = read(&mut memory, &args).await.unwrap();
    assert_eq!(objects, ["Service default/shop"], "as it was last accepted");
    let path = file.display();
    assert_eq!(
        faults,
        [
            format!("{path}: document 2: an object needs `apiVersion`, `kind` and `metadata.name`"),
            format!("{path}: Service default/shop: spec.ports: too odd"),
        ]
    );
}

#[tokio::test]
async fn what_gateway_api_tries_out_is_read_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let backend = "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackend\nmetadata: {name: api}\n\
                   spec: {type: ExternalHostname, externalHostname: {hostname: a.example.com}, port: {port: 80}}\n";
    std::fs::write(folder.path().join("a.yaml"), backend).unwrap();
    let (objects, faults) = read(&mut Memory::default(), &args(folder.path())).await.unwrap();
    assert_eq!(objects, ["XBackend default/api"]);
    assert!(faults.is_empty(), "{faults:?}");
}

#[tokio::test]
async fn a_file_that_can_not_be_read_or_is_no_yaml_goes_on_with_what_it_held() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let args = args(folder.path());
    let mut memory = Memory::default();
    std::fs::write(&file, GATEWAY).unwrap();
    read(&mut memory, &args).await.unwrap();
    for spoiled in [&b"kind: ["[..], b"\xff\xfe"] {
        std::fs::write(&file, spoiled).unwrap();
        let (objects, faults) = read(&mut memory, &args).await.unwrap();
        assert_eq!(objects, ["Gateway default/edge"], "{faults:?}");
        assert_eq!(faults.len(), 1, "{faults:?}");
    }
    std::fs::remove_file(&file).unwrap();
    let (objects, faults) = read(&mut memory, &args).await.unwrap();
    assert!(objects.is_empty() && faults.is_empty(), "{objects:?} {faults:?}");
}

#[tokio::test]
async fn a_folder_that_can_not_be_read_goes_on_with_what_it_held() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("manifests");
    let args = args(&folder);
    let mut memory = Memory::default();
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a.yaml"), GATEWAY).unwrap();
    read(&mut memory, &args).await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    // A link that leads to itself: something is there, and nobody can read it.
    std::os::unix::fs::symlink(&folder, &folder).unwrap();
    let (objects, faults) = read(&mut memory, &args).await.unwrap();
    assert_eq!((objects, faults.len()), (vec!["Gateway default/edge".to_owned()], 1));
    std::fs::remove_file(&folder).unwrap();
    let (objects, _) = read(&mut memory, &args).await.unwrap();
    assert_eq!(objects, [""; 0], "it is gone");
}

#[tokio::test]
async fn a_change_is_a_new_generation_and_a_name_stands_once() {
    let folder = tempfile::tempdir().unwrap();
    let args = args(folder.path());
    let mut memory = Memory::default();
    std::fs::write(folder.path().join("a.yaml"), SERVICE).unwrap();
    read(&mut memory, &args).await.unwrap();
    std::fs::write(folder.path().join("a.yaml"), SERVICE.replace("80", "81")).unwrap();
    std::fs::write(folder.path().join("b.yaml"), SERVICE).unwrap();
    let reading = memory.read(&args).await.unwrap();
    let object = reading.objects.values().next().unwrap();
    assert_eq!(object["spec"]["ports"][0]["port"], 81);
    assert_eq!(object["metadata"]["generation"], 2);
    assert!(reading.faults[0].to_string().contains("b.yaml: Service default/shop: stands in more than one"));
}

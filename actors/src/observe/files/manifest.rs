//! Owns: finding manifests and taking them apart into objects.
//! Called by the reader of files. Refuses to know what becomes of the objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use actors_core::snapshot::meta::{Kind, ObjectRef};
use serde_json::Value;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 16 << 20;

/// Something that is wrong with a file or an object in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file, where it is known.
    pub file: Option<PathBuf>,
    /// The object, where one could be told.
    pub object: Option<String>,
    /// What is wrong, with the field.
    pub reason: String,
}

impl Fault {
    /// Of an object in a file.
    pub fn new(file: &Path, object: &ObjectRef, reason: String) -> Self {
        Self { file: Some(file.to_owned()), object: Some(object.to_string()), reason }
    }

    /// Of an object.
    pub fn of_object(object: &ObjectRef, reason: String) -> Self {
        Self { file: None, object: Some(object.to_string()), reason }
    }

    fn of_file(file: &Path, reason: String) -> Self {
        Self { file: Some(file.to_owned()), object: None, reason }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// An object as written, in a namespace if its kind has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its kind.
    pub kind: Kind,
    /// The object.
    pub object: Value,
}

/// What the files and folders that are read look like.
#[derive(Debug, Default)]
pub struct Scan {
    /// The texts of files, by path.
    pub texts: BTreeMap<PathBuf, String>,
    /// Files and folders that are there, but could not be read.
    unread: BTreeSet<PathBuf>,
    /// What could not be read.
    pub faults: Vec<Fault>,
}

impl Scan {
    /// Looks at files, and at folders for the manifests in them.
    pub fn new(paths: &[PathBuf]) -> Self {
        let mut scan = Self::default();
        for path in paths {
            let files = if path.is_dir() { list(path) } else { Ok(vec![path.clone()]) };
            match files {
                Ok(files) => files.into_iter().for_each(|file| scan.read(file)),
                Err(error) => scan.failed(path, &error, "the folder can't be read"),
            }
        }
        scan
    }

    /// Whether a file is there, as far as can be seen.
    pub fn has(&self, file: &Path) -> bool {
        let unread = |path: &Path| self.unread.contains(path);
        self.texts.contains_key(file) || unread(file) || file.parent().is_some_and(unread)
    }

    fn read(&mut self, file: PathBuf) {
        match read(&file) {
            Ok(text) => drop(self.texts.insert(file, text)),
            Err(error) => self.failed(&file, &error, "can't be read"),
        }
    }

    fn failed(&mut self, path: &Path, error: &io::Error, what: &str) {
        self.faults.push(Fault::of_file(path, format!("{what}: {error}")));
        if error.kind() != io::ErrorKind::NotFound {
            self.unread.insert(path.to_owned());
        }
    }
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let manifest = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        path.is_file() && matches!(extension, Some("yaml" | "yml" | "json"))
    };
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.into_iter().map(|entry| entry.path()).filter(manifest).collect())
}

fn read(file: &Path) -> io::Result<String> {
    if std::fs::metadata(file)?.len() > LARGEST {
        return Err(io::Error::other(format!("it is larger than {LARGEST} bytes")));
    }
    std::fs::read_to_string(file)
}

/// The objects of a file, and which documents of it are none that are read.
///
/// # Errors
/// Where the file as a whole is no YAML.
pub fn parse(file: &Path, text: &str) -> Result<(Vec<Document>, Vec<Fault>), Fault> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| Fault::of_file(file, format!("is no YAML: {error}")))?;
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for (index, document) in documents.into_iter().flat_map(items).enumerate() {
        match object(document) {
            Ok(Some(document)) => found.push(document),
            Ok(None) => {}
            Err(reason) => faults.push(Fault::of_file(file, format!("document {}: {reason}", index + 1))),
        }
    }
    Ok((found, faults))
}

/// A List is what it lists.
fn items(document: Value) -> Vec<Value> {
    match document {
        Value::Object(mut list) if list.get("kind").is_some_and(|kind| kind == "List") => {
            match list.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            }
        }
        other => vec![other],
    }
}

fn object(mut document: Value) -> Result<Option<Document>, String> {
    if document.is_null() {
        return Ok(None);
    }
    let text = |path: &str| document.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind_name) = (text("/apiVersion"), text("/kind"));
    let name = text("/metadata/name");
    if kind_name.is_empty() || name.is_empty() {
        return Err("an object needs `apiVersion`, `kind` and `metadata.name`".to_owned());
    }
    let Some(kind) = Kind::of(api_version, kind_name).filter(|kind| *kind != Kind::Proxy) else {
        return Err(format!("{kind_name} {name}: objects of {api_version} {kind_name} are not read"));
    };
    if kind.is_namespaced() {
        if text("/metadata/namespace").is_empty() {
            document["metadata"]["namespace"] = "default".into();
        }
    } else if let Some(metadata) = document["metadata"].as_object_mut() {
        metadata.remove("namespace");
    }
    Ok(Some(Document { kind, object: document }))
}

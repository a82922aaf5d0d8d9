//! What is written is what is read; what is damaged is never served.

use proxy_config::certificate::PrivateKey;
use proxy_config::listener::{Address, Bind, Listener, Protocol};
use proxy_config::name::ObjectName;
use proxy_config::unit::Unit;

use super::*;

const SECRET: &str = "the-secret-of-the-key";

fn key(name: &str, pem: &str) -> EncodedUnit {
    let id = UnitId::key(&ObjectName::new("shop", name));
    EncodedUnit::new(id, &Unit::Key(PrivateKey { pem: pem.to_owned() }))
}

fn listener(name: &str) -> EncodedUnit {
    let gateway = ObjectName::new("shop", "edge");
    let listener = Listener {
        passthrough: false,
        client_validation: None,
        backend_certificate: None,
        bind: Bind { address: Address::Node, port: 80 },
        further: Vec::new(),
        protocol: Protocol::Http,
        hostname: None,
        certificates: Vec::new(),
        gateway: gateway.clone(),
        name: name.to_owned(),
    };
    EncodedUnit::new(UnitId::listener(&gateway, name), &Unit::Listener(listener))
}

fn version(generation: u64) -> Version {
    Version { term: 3, generation }
}

/// A journal to which changes are saved one by one.
struct Rig {
    folder: tempfile::TempDir,
    units: UnitSet,
    last_good: LastGood,
    generation: u64,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (last_good, remembered) = LastGood::open(folder.path()).unwrap();
        assert!(remembered.is_none());
        Self { folder, units: UnitSet::default(), last_good, generation: 0 }
    }

    fn save(&mut self, put: &[EncodedUnit], delete: &[UnitId]) {
        self.generation += 1;
        self.units.apply(put.to_vec(), delete.to_vec());
        let change = Change { version: version(self.generation), at: SystemTime::now(), put, delete };
        self.last_good.save(&self.units, &change).unwrap();
    }

    fn reopen(&self) -> Option<Remembered> {
        LastGood::open(self.folder.path()).unwrap().1
    }

    fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(suffix)).collect();
        files.sort();
        files
    }
}

#[test]
fn what_was_saved_last_is_what_is_read() {
    let mut rig = Rig::new();
    rig.save(&[listener("a"), key("k", SECRET)], &[]);
    rig.save(&[listener("b")], &[listener("a").id]);
    rig.save(&[], &[]);
    let remembered = rig.reopen().unwrap();
    assert_eq!(remembered.units.root(), rig.units.root());
    assert_eq!(remembered.version, version(3));
    assert!(remembered.confirmed.elapsed().unwrap() < Duration::from_secs(60));
}

#[test]
fn keys_are_in_a_file_of_their_own_for_the_owner_alone() {
    let mut rig = Rig::new();
    rig.save(&[listener("a"), key("k", SECRET)], &[]);
    rig.save(&[key("l", SECRET)], &[]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for path in rig.files("journal") {
        assert!(!String::from_utf8_lossy(&fs::read(path).unwrap()).contains(SECRET));
    }
    let keys = rig.files("keys");
    assert_eq!(keys.len(), 1);
    assert_eq!(mode(&keys[0]), 0o600);
    fs::set_permissions(rig.folder.path(), Permissions::from_mode(0o755)).unwrap();
    rig.reopen();
    assert_eq!(mode(rig.folder.path()), 0o700);
    assert!(rig.reopen().unwrap().units.get(&key("l", SECRET).id).is_some());
}

#[test]
fn a_journal_cut_anywhere_gives_what_came_before_the_cut() {
    let mut rig = Rig::new();
    let mut roots = vec![(0, None)];
    for name in ["a", "b", "c"] {
        rig.save(&[listener(name)], &[]);
        let size = fs::metadata(&rig.files("journal")[0]).unwrap().len();
        roots.push((size, Some(rig.units.root())));
    }
    let path = rig.files("journal").remove(0);
    let whole = fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let want = roots.iter().rev().find(|(size, _)| *size <= cut as u64).unwrap().1;
        assert_eq!(rig.reopen().map(|known| known.units.root()), want, "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_never_served() {
    let mut rig = Rig::new();
    rig.save(&[listener("a")], &[]);
    let before = rig.units.root();
    rig.save(&[listener("b"), key("k", SECRET)], &[]);
    let (journal, keys) = (rig.files("journal").remove(0), rig.files("keys").remove(0));
    for path in [journal, keys] {
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, &flipped).unwrap();
            let root = rig.reopen().map(|known| known.units.root());
            assert!(root.is_none() || root == Some(before), "byte {at} of {path:?}");
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn where_the_newest_journal_is_lost_the_one_before_serves() {
    let mut rig = Rig::new();
    rig.save(&[listener("a")], &[]);
    let before = rig.units.root();
    // A new process writes a journal of its own.
    rig.last_good = LastGood::open(rig.folder.path()).unwrap().0;
    rig.save(&[listener("b")], &[]);
    let journals = rig.files("journal");
    assert_eq!(journals.len(), 2);
    fs::write(&journals[1], b"lost").unwrap();
    assert_eq!(rig.reopen().unwrap().units.root(), before);
}

#[test]
fn a_journal_is_written_anew_at_twice_its_size() {
    let mut rig = Rig::new();
    for n in 0..3000 {
        rig.save(&[listener("a"), key("k", &n.to_string())], &[]);
        // The one in use would grow on meanwhile, and a busy disk takes its time.
        while rig.last_good.rewriting.as_ref().is_some_and(|one| !one.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let total: u64 = rig.files("").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(total < 4 * LEAST_GROWTH, "{total} bytes after {n} changes");
        assert!(rig.files("journal").len() <= 2, "the one in use and the one before");
    }
    assert_eq!(rig.reopen().unwrap().units.root(), rig.units.root());
}

#[test]
fn what_is_saved_while_a_journal_is_written_anew_is_in_it() {
    let mut rig = Rig::new();
    let many: Vec<_> = (0..2000).map(|n| listener(&format!("l{n}"))).collect();
    rig.save(&many, &[]);
    let mut n = 0;
    while !rig.files("journal").iter().any(|path| path.ends_with("0000000002.journal")) {
        n += 1;
        // Each of them is missed if it is left out.
        rig.save(&[listener(&format!("m{n}")), key("k", &"x".repeat(4096))], &[]);
    }
    rig.save(&[listener("last")], &[]);
    assert_eq!(rig.reopen().unwrap().units.root(), rig.units.root());
}

#[test]
fn what_a_process_left_half_written_goes_when_the_next_one_starts() {
    let rig = Rig::new();
    fs::write(rig.folder.path().join("1.journal.draft"), "half").unwrap();
    assert!(rig.reopen().is_none());
    assert!(rig.files("").is_empty(), "{:?}", rig.files(""));
}

#[test]
fn a_folder_that_can_not_be_used_is_an_error_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = LastGood::open(&file.path().join("state")).unwrap_err().to_string();
    assert!(error.contains("state"), "{error}");
}

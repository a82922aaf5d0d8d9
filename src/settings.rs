//! Settings: a command's keys as one table, from which come its flags, its environment, its file and its
//! help. A flag stands above the environment, the environment above the file, the file above the default.
//! Everything that is wrong is reported at once, each by its key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// One setting of a command.
pub(crate) struct Key {
    /// The flag without dashes, and the key in the file.
    pub(crate) name: &'static str,
    /// The environment variable.
    pub(crate) env: &'static str,
    /// What the value is called in the help.
    pub(crate) value: &'static str,
    /// What it does.
    pub(crate) help: &'static str,
    /// What stands where nobody says anything; `None`: the setting is absent then.
    pub(crate) default: Option<&'static str>,
    /// Whether it may be given several times (in the environment: separated by commas; in the file: a list).
    pub(crate) many: bool,
}

impl Key {
    /// A setting with one value.
    pub(crate) const fn one(
        name: &'static str,
        env: &'static str,
        value: &'static str,
        default: Option<&'static str>,
        help: &'static str,
    ) -> Self {
        Self { name, env, value, help, default, many: false }
    }

    /// A setting with any number of values.
    pub(crate) const fn many(
        name: &'static str,
        env: &'static str,
        value: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, env, value, help, default: None, many: true }
    }

    fn argument(&self) -> Arg {
        let help = match self.default {
            Some(default) => format!("{} [default: {default}]", self.help),
            None => self.help.to_owned(),
        };
        let argument = Arg::new(self.name).long(self.name).env(self.env).value_name(self.value).help(help);
        if self.many {
            argument.action(ArgAction::Append).value_delimiter(',')
        } else {
            argument.action(ArgAction::Set)
        }
    }
}

/// The key that names the file itself.
const CONFIG: Key = Key::one("config", "PORTREEVE_CONFIG", "FILE", None, "A YAML file of these settings");

/// Adds a table of settings to a command.
pub(crate) fn arguments(command: Command, keys: &[Key]) -> Command {
    command.args(keys.iter().chain([&CONFIG]).map(Key::argument))
}

/// What is wrong with the settings, all of it.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    /// Adds one, by its key.
    pub(crate) fn add(&mut self, key: &str, problem: impl fmt::Display) {
        self.0.push(format!("{key}: {problem}"));
    }

    /// The result, if nothing is wrong.
    ///
    /// # Errors
    /// All problems, in the order in which they were found.
    pub(crate) fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings can't be used:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// The values of a command's settings, by key.
pub(crate) struct Values {
    values: BTreeMap<&'static str, Vec<String>>,
    problems: Problems,
}

impl Values {
    /// Reads what flags, environment and file say.
    pub(crate) fn read(matches: &ArgMatches, keys: &[Key]) -> Self {
        let mut problems = Problems::default();
        let file = matches.get_one::<String>(CONFIG.name);
        let mut file = file.map_or_else(BTreeMap::new, |path| read_file(Path::new(path), &mut problems));
        let mut values = BTreeMap::new();
        for key in keys {
            let in_file = file.remove(key.name);
            let said = matches.get_many::<String>(key.name).map(|all| all.cloned().collect::<Vec<_>>());
            let above = said.filter(|_| matches.value_source(key.name) != Some(ValueSource::DefaultValue));
            let default = || key.default.map(|default| vec![default.to_owned()]);
            if let Some(found) = above.or(in_file).or_else(default) {
                if found.len() > 1 && !key.many {
                    problems.add(key.name, "takes one value, not a list");
                }
                values.insert(key.name, found);
            }
        }
        let known = || keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
        for unknown in file.into_keys() {
            problems.add(&unknown, format_args!("no such key; there are {}", known()));
        }
        Self { values, problems }
    }

    /// The value of a key; `None` where there is none or where it can't be read, which is a problem.
    pub(crate) fn get<T>(&mut self, key: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let text = self.values.get(key)?.first()?.clone();
        self.parse(key, &text)
    }

    /// The value of a key that must be there.
    pub(crate) fn require<T>(&mut self, key: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        if !self.values.contains_key(key) {
            self.problems
                .add(key, format_args!("is needed: give --{key}, its variable, or the key in the file"));
        }
        self.get(key)
    }

    /// All values of a key.
    pub(crate) fn all<T>(&mut self, key: &str) -> Vec<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let texts = self.values.get(key).cloned().unwrap_or_default();
        texts.iter().filter_map(|text| self.parse(key, text)).collect()
    }

    fn parse<T>(&mut self, key: &str, text: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        text.parse().map_err(|error| self.problems.add(key, format_args!("{text:?}: {error}"))).ok()
    }

    /// What was wrong, for the caller to add to.
    pub(crate) fn into_problems(self) -> Problems {
        self.problems
    }
}

fn read_file(path: &Path, problems: &mut Problems) -> BTreeMap<String, Vec<String>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.add(CONFIG.name, format_args!("{}: {error}", path.display()));
            return BTreeMap::new();
        }
    };
    let parsed: BTreeMap<String, serde_json::Value> = match serde_saphyr::from_str(&text) {
        Ok(parsed) => parsed,
        Err(error) => {
            problems.add(CONFIG.name, format_args!("{}: {error}", path.display()));
            return BTreeMap::new();
        }
    };
    parsed.into_iter().filter_map(|(key, value)| Some((key.clone(), texts(&key, value, problems)?))).collect()
}

fn texts(key: &str, value: serde_json::Value, problems: &mut Problems) -> Option<Vec<String>> {
    use serde_json::Value;
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Number(number) => Some(vec![number.to_string()]),
        Value::Bool(flag) => Some(vec![flag.to_string()]),
        Value::Array(items) => {
            Some(items.into_iter().filter_map(|item| texts(key, item, problems)).flatten().collect())
        }
        Value::Null | Value::Object(_) => {
            problems.add(key, "must be a text, a number, true, false or a list of these");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[Key] = &[
        Key::one("port", "PORTREEVE_TEST_PORT", "PORT", Some("9901"), "the port"),
        Key::one("name", "PORTREEVE_TEST_NAME", "NAME", None, "the name"),
        Key::many("proxy", "PORTREEVE_TEST_PROXY", "NAME=HOST:PORT", "a proxy"),
    ];

    fn values(file: &str, flags: &[&str]) -> Values {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.yaml");
        std::fs::write(&path, file).unwrap();
        let config = path.to_str().unwrap();
        let flags = ["test", "--config", config].into_iter().chain(flags.iter().copied());
        let matches = arguments(Command::new("test"), KEYS).get_matches_from(flags);
        Values::read(&matches, KEYS)
    }

    #[test]
    fn a_flag_stands_above_the_file_and_the_file_above_the_default() {
        let mut none = values("{}", &[]);
        assert_eq!((none.get::<u16>("port"), none.get::<String>("name")), (Some(9901), None));
        assert_eq!(values("port: 1", &[]).get::<u16>("port"), Some(1));
        assert_eq!(values("port: 1", &["--port", "2"]).get::<u16>("port"), Some(2));
    }

    #[test]
    fn a_list_comes_from_repeated_flags_from_commas_and_from_a_list_in_the_file() {
        assert_eq!(values("proxy: [a, b]", &[]).all::<String>("proxy"), ["a", "b"]);
        assert_eq!(
            values("proxy: a", &["--proxy", "c", "--proxy", "d,e"]).all::<String>("proxy"),
            ["c", "d", "e"]
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_by_its_key() {
        let mut values = values("prot: 1\nport: many\nproxy: {a: b}", &[]);
        assert_eq!(values.get::<u16>("port"), None);
        assert_eq!(values.require::<String>("name"), None);
        let text = values.into_problems().into_result(()).unwrap_err().to_string();
        for key in [
            "prot: no such key; there are port, name, proxy",
            "port: \"many\"",
            "name: is needed",
            "proxy: must be",
        ] {
            assert!(text.contains(key), "{key} in {text}");
        }
    }
}

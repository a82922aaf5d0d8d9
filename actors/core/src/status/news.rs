//! What a person should hear of when a status changes: a condition that begins to tell of trouble, or tells of
//! another one, or of none any more.
//!
//! The status writer asks it of each status that it writes, so that what stood before is what was last told: a new
//! leader tells nothing twice. It refuses to know how the news are told.

use serde_json::Value;

/// Conditions that tell of trouble when they hold; all others do when they do not.
const NEGATIVE: &[&str] = &["Conflicted", "PartiallyInvalid", "portreeve.dev/CertificateExpiring"];
/// The reason of what is on its way: nothing to tell of yet.
const PENDING: &str = "Pending";

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct News {
    /// Whether it is trouble; else trouble that is over.
    pub trouble: bool,
    /// The condition's reason.
    pub reason: String,
    /// Whose condition it is, and its message.
    pub note: String,
}

/// What to tell of a status that takes the place of another one (null where there was none): one for each reason
/// and message.
pub fn news(before: &Value, after: &Value) -> Vec<News> {
    let mut found = Vec::new();
    compare("", before, after, &mut found);
    for listener in entries(after, "listeners") {
        let name = text(listener, "name");
        let known = entries(before, "listeners").find(|known| text(known, "name") == name);
        compare(&format!("listener {name}: "), known.unwrap_or(&Value::Null), listener, &mut found);
    }
    for parent in entries(after, "parents") {
        let same =
            |known: &&Value| ["parentRef", "controllerName"].iter().all(|key| known[*key] == parent[*key]);
        let known = entries(before, "parents").find(same);
        let name = text(&parent["parentRef"], "name");
        compare(&format!("parent {name}: "), known.unwrap_or(&Value::Null), parent, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

fn compare(whose: &str, before: &Value, after: &Value, found: &mut Vec<News>) {
    for condition in entries(after, "conditions") {
        let known = entries(before, "conditions").find(|known| known["type"] == condition["type"]);
        let (was, is) = (known.is_some_and(is_trouble), is_trouble(condition));
        let same = known.is_some_and(|known| known["reason"] == condition["reason"]);
        let over = was && is_well(condition);
        if (is && !(was && same)) || over {
            let (reason, note) = (text(condition, "reason").to_owned(), text(condition, "message"));
            found.push(News { trouble: is, reason, note: format!("{whose}{note}") });
        }
    }
}

fn is_negative(condition: &Value) -> bool {
    NEGATIVE.contains(&text(condition, "type"))
}

fn is_trouble(condition: &Value) -> bool {
    let troubled = if is_negative(condition) { "True" } else { "False" };
    condition["status"] == troubled && condition["reason"] != PENDING
}

fn is_well(condition: &Value) -> bool {
    let well = if is_negative(condition) { "False" } else { "True" };
    condition["status"] == well
}

fn entries<'a>(of: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    of[list].as_array().into_iter().flatten()
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn condition(kind: &str, status: &str, reason: &str) -> Value {
        json!({ "type": kind, "status": status, "reason": reason, "message": format!("because {reason}") })
    }

    /// What is told of one condition that was so and is so.
    fn told(before: Option<(&str, &str)>, after: (&str, &str), kind: &str) -> Vec<(bool, String)> {
        let status =
            |(status, reason): (&str, &str)| json!({ "conditions": [condition(kind, status, reason)] });
        let news = news(&before.map_or(Value::Null, status), &status(after));
        news.into_iter().map(|news| (news.trouble, news.reason)).collect()
    }

    #[test]
    fn trouble_is_told_when_it_begins_changes_and_ends() {
        let trouble = |reason: &str| vec![(true, reason.to_owned())];
        assert_eq!(told(None, ("False", "A"), "Accepted"), trouble("A"));
        assert_eq!(told(Some(("True", "Accepted")), ("False", "A"), "Accepted"), trouble("A"));
        assert_eq!(told(Some(("False", "A")), ("False", "B"), "Accepted"), trouble("B"));
        let over = vec![(false, "Accepted".to_owned())];
        assert_eq!(told(Some(("False", "A")), ("True", "Accepted"), "Accepted"), over);
    }

    #[test]
    fn what_is_well_or_on_its_way_or_told_already_is_not_told() {
        assert_eq!(told(None, ("True", "Accepted"), "Accepted"), []);
        assert_eq!(told(None, ("False", "Pending"), "Programmed"), []);
        assert_eq!(told(Some(("True", "Programmed")), ("Unknown", "Pending"), "Programmed"), []);
        assert_eq!(told(Some(("False", "A")), ("False", "A"), "Accepted"), []);
        assert_eq!(told(None, ("False", "NoConflicts"), "Conflicted"), []);
        assert_eq!(told(None, ("True", "HostnameConflict"), "Conflicted").len(), 1);
    }

    #[test]
    fn listeners_and_parents_are_named_and_what_others_say_is_not_ours_to_tell() {
        let foreign = json!({
            "parentRef": { "name": "edge" }, "controllerName": "theirs", "conditions": [condition("Accepted", "False", "X")],
        });
        let parent = json!({
            "parentRef": { "name": "edge" }, "controllerName": "ours", "conditions": [condition("Accepted", "False", "Y")],
        });
        let listener = json!({ "name": "https", "conditions": [condition("ResolvedRefs", "False", "Z")] });
        let before = json!({ "parents": [foreign] });
        let after = json!({ "parents": [foreign, parent], "listeners": [listener] });
        let notes: Vec<_> = news(&before, &after).into_iter().map(|news| news.note).collect();
        assert_eq!(notes, ["parent edge: because Y", "listener https: because Z"]);
    }
}

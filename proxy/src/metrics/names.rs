//! What became of names outside the cluster: counted by the resolver, shown by [`super::text`].

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::text::family;
use crate::resolver::destination::Forbidden;
use crate::resolver::standing::{Answer, Family};

/// What questions came to, as the label `outcome` names it.
const OUTCOMES: [&str; 3] = ["found", "none", "failed"];

/// Counts of names, of questions and of addresses.
#[derive(Debug, Default)]
pub struct Names {
    /// Names that are resolved.
    pub wanted: AtomicU64,
    /// Those of them that have no address.
    pub unresolved: AtomicU64,
    lookups: [AtomicU64; OUTCOMES.len()],
    forbidden: [AtomicU64; Forbidden::ALL.len()],
}

impl Names {
    /// Counts the two questions of a name by their answers.
    pub fn asked(&self, answer: &Answer) {
        for family in [&answer.v4, &answer.v6] {
            let outcome = match family {
                Family::Found(..) => 0,
                Family::None => 1,
                Family::Failed(_) => 2,
            };
            self.lookups[outcome].fetch_add(1, Relaxed);
        }
    }

    /// Counts an address that is never dialled.
    pub fn forbidden(&self, why: Forbidden) {
        self.forbidden[why as usize].fetch_add(1, Relaxed);
    }
}

/// Renders them; nothing where no name was ever asked for.
pub(super) fn render(out: &mut String, names: &Names) -> fmt::Result {
    let lookups = names.lookups.each_ref().map(|count| count.load(Relaxed));
    if lookups.iter().all(|count| *count == 0) {
        return Ok(());
    }
    family(out, "portreeve_external_names", "gauge", "Names outside the cluster that are resolved.")?;
    writeln!(out, "portreeve_external_names {}", names.wanted.load(Relaxed))?;
    family(out, "portreeve_external_names_unresolved", "gauge", "Those of them without an address.")?;
    writeln!(out, "portreeve_external_names_unresolved {}", names.unresolved.load(Relaxed))?;
    const LOOKUPS: &str = "portreeve_dns_lookups_total";
    family(out, LOOKUPS, "counter", "Questions to name servers, by what was answered.")?;
    for (outcome, count) in OUTCOMES.into_iter().zip(lookups) {
        writeln!(out, "{LOOKUPS}{{outcome=\"{outcome}\"}} {count}")?;
    }
    const FORBIDDEN: &str = "portreeve_dns_forbidden_addresses_total";
    family(out, FORBIDDEN, "counter", "Addresses in answers that are never dialled, by reason.")?;
    for why in Forbidden::ALL {
        let count = names.forbidden[why as usize].load(Relaxed);
        writeln!(out, "{FORBIDDEN}{{reason=\"{}\"}} {count}", why.label())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_questions_and_forbidden_addresses_are_shown_once_there_are_any() {
        let (names, mut text) = (Names::default(), String::new());
        render(&mut text, &names).unwrap();
        assert_eq!(text, "");
        names.asked(&Answer { v4: Family::None, v6: Family::Failed(String::new()) });
        names.forbidden(Forbidden::LinkLocal);
        names.wanted.store(2, Relaxed);
        names.unresolved.store(1, Relaxed);
        render(&mut text, &names).unwrap();
        for line in [
            "portreeve_external_names 2",
            "portreeve_external_names_unresolved 1",
            "portreeve_dns_lookups_total{outcome=\"found\"} 0",
            "portreeve_dns_lookups_total{outcome=\"none\"} 1",
            "portreeve_dns_lookups_total{outcome=\"failed\"} 1",
            "portreeve_dns_forbidden_addresses_total{reason=\"link_local\"} 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
    }
}

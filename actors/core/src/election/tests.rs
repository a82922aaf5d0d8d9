//! One candidate against answers that are written out; many candidates are simulated in `actors`.

use super::*;
use crate::election::record::TERM;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn elector() -> Elector {
    Elector::new("me", Timing::default())
}

fn lease(version: &str, holder: &str, term: u64) -> Box<Lease> {
    let claim =
        Claim { holder: Some(holder.to_owned()), duration: 6 * SECOND, term, transitions: 1, acquires: true };
    let mut lease = claim.write(None, "portreeve", jiff::Timestamp::UNIX_EPOCH);
    lease.metadata.resource_version = Some(version.to_owned());
    Box::new(lease)
}

fn written(action: &Action) -> &Claim {
    match action {
        Action::Write { claim, .. } => claim,
        other => panic!("expected a write, got {other:?}"),
    }
}

/// Leads in term 8 since 0 s.
fn leader() -> Elector {
    let mut elector = elector();
    elector.answered(Answer::Lease(lease("1", "", 7)), Duration::ZERO, Duration::ZERO, 0.0);
    assert_eq!(written(&elector.step(Duration::ZERO)).term, 8);
    elector.confirmed(lease("2", "me", 8), Duration::ZERO, 10 * MS, 0.0);
    assert_eq!(elector.reign(10 * MS).unwrap().term, 8);
    elector
}

#[test]
fn the_usual_times_fit_each_other() {
    assert_eq!(Timing::default().check(), Ok(()));
    let timing = Timing { stop: 2 * SECOND, ..Timing::default() };
    assert_eq!(timing.check(), Err(TimingError::Overlap));
    let timing = Timing { renew_deadline: 2 * SECOND, ..Timing::default() };
    assert_eq!(timing.check(), Err(TimingError::Impatient));
}

#[test]
fn an_absent_lease_is_created_at_once_by_a_process_that_never_saw_one() {
    let mut elector = elector();
    assert_eq!(elector.step(Duration::ZERO), Action::Read);
    elector.answered(Answer::Absent, Duration::ZERO, MS, 0.0);
    let action = elector.step(MS);
    assert!(matches!(action, Action::Write { base: None, .. }));
    assert_eq!(written(&action).term, 1);
}

#[test]
fn a_lease_that_vanished_is_created_only_after_a_whole_lease_and_above_its_term() {
    let mut elector = elector();
    elector.answered(Answer::Lease(lease("1", "other", 41)), Duration::ZERO, Duration::ZERO, 0.0);
    elector.answered(Answer::Absent, SECOND, SECOND, 0.0);
    let mut now = SECOND;
    loop {
        match elector.step(now) {
            Action::Wait(until) => now = until,
            Action::Read => elector.answered(Answer::Absent, now, now, 0.0),
            write @ Action::Write { .. } => {
                assert_eq!((now, written(&write).term), (7 * SECOND, 42));
                return;
            }
        }
    }
}

#[test]
fn a_leader_whose_lease_vanished_creates_it_at_once_in_a_new_term() {
    let mut elector = leader();
    elector.answered(Answer::Absent, SECOND, SECOND, 0.0);
    assert_eq!(elector.reign(SECOND), None);
    let action = elector.step(SECOND);
    assert!(matches!(action, Action::Write { base: None, .. }));
    assert_eq!(written(&action).term, 9);
}

#[test]
fn a_holder_is_dead_when_its_record_stood_for_a_lease_since_it_was_seen() {
    let mut elector = elector();
    let mut now = Duration::ZERO;
    for version in ["1", "2"] {
        elector.answered(Answer::Lease(lease(version, "other", 3)), now, now, 0.0);
        now += SECOND;
    }
    // Seen to change at 1 s: nothing is written before 7 s, whatever its renewTime says.
    loop {
        match elector.step(now) {
            Action::Wait(until) => now = until,
            Action::Read => elector.answered(Answer::Lease(lease("2", "other", 3)), now, now, 0.5),
            write @ Action::Write { .. } => {
                assert_eq!((now, written(&write).term), (7 * SECOND, 4));
                assert_eq!(written(&write).transitions, 2);
                return;
            }
        }
    }
}

#[test]
fn a_lease_that_was_given_up_is_taken_at_once() {
    let mut elector = elector();
    elector.answered(Answer::Lease(lease("1", "", 3)), Duration::ZERO, Duration::ZERO, 0.0);
    assert_eq!(written(&elector.step(Duration::ZERO)).term, 4);
}

#[test]
fn leadership_counts_from_before_the_request_and_ends_without_renewal() {
    let mut elector = leader();
    let reign = elector.reign(SECOND).unwrap();
    assert_eq!((reign.acts_until, reign.valid_until), (3_500 * MS, 5_000 * MS));
    assert_eq!(elector.reign(3_499 * MS).unwrap().term, 8);
    assert_eq!(elector.reign(3_500 * MS), None);
    assert_eq!(elector.step(3_500 * MS), Action::Read, "it looks again before it writes");
}

#[test]
fn one_lost_answer_does_not_depose() {
    let mut elector = leader();
    assert_eq!(written(&elector.step(SECOND)).term, 8);
    elector.answered(Answer::Unknown, SECOND, 2 * SECOND, 0.0);
    assert_eq!(elector.step(2 * SECOND), Action::Read);
    // It had been carried out: the version is another, the holder is still us.
    elector.answered(Answer::Lease(lease("3", "me", 8)), 2 * SECOND, 2 * SECOND, 0.0);
    let action = elector.step(2 * SECOND);
    let Action::Write { base: Some(base), claim } = &action else { panic!("{action:?}") };
    assert_eq!((base.metadata.resource_version.as_deref(), claim.term), (Some("3"), 8));
    elector.confirmed(lease("4", "me", 8), 2 * SECOND, 2 * SECOND, 0.0);
    assert_eq!(elector.reign(5 * SECOND).unwrap().term, 8);
}

#[test]
fn a_conflict_with_another_holder_deposes_at_once() {
    let mut elector = leader();
    elector.answered(Answer::Conflict, SECOND, SECOND, 0.0);
    assert_eq!(elector.step(SECOND), Action::Read);
    elector.answered(Answer::Lease(lease("9", "other", 9)), SECOND, SECOND, 0.0);
    assert_eq!(elector.reign(SECOND), None);
}

#[test]
fn a_leader_refused_by_a_higher_term_takes_one_above_if_it_still_holds_the_lease() {
    let mut elector = leader();
    elector.refused(20, SECOND);
    assert_eq!(elector.step(SECOND), Action::Read);
    elector.answered(Answer::Lease(lease("2", "me", 8)), SECOND, SECOND, 0.0);
    assert_eq!(written(&elector.step(SECOND)).term, 21);
    elector.confirmed(lease("3", "me", 21), SECOND, SECOND, 0.0);
    assert_eq!(elector.reign(SECOND).unwrap().term, 21);
    elector.refused(21 + CREDIBLE + 1, SECOND);
    assert_eq!(written(&elector.step(2 * SECOND)).term, 21, "an incredible claim changes nothing");
}

#[test]
fn a_leader_whose_term_another_one_has_had_takes_one_above() {
    let mut elector = leader();
    elector.refused(8, SECOND);
    assert_eq!(elector.step(SECOND), Action::Read);
    elector.answered(Answer::Lease(lease("2", "me", 8)), SECOND, SECOND, 0.0);
    assert_eq!(written(&elector.step(SECOND)).term, 9);
    elector.confirmed(lease("3", "me", 9), SECOND, SECOND, 0.0);
    // It is told so again each time that it looks, and has done its part.
    elector.refused(8, SECOND);
    assert_eq!(written(&elector.step(2 * SECOND)).term, 9);
}

#[test]
fn odd_leases_are_read_as_what_they_can_mean() {
    let mut odd = Lease::default();
    assert_eq!(Record::of(&odd).holder, None);
    let spec = odd.spec.get_or_insert_default();
    spec.lease_duration_seconds = Some(-5);
    spec.lease_transitions = Some(-1);
    let annotations = odd.metadata.annotations.get_or_insert_default();
    annotations.insert(TERM.to_owned(), "many".to_owned());
    let record = Record::of(&odd);
    assert_eq!((record.duration, record.transitions, record.term), (None, 0, None));
    let mut elector = elector();
    elector.answered(Answer::Lease(Box::new(odd)), Duration::ZERO, Duration::ZERO, 0.0);
    assert_eq!(written(&elector.step(Duration::ZERO)).term, 1);

    // A record that claims the Lease for years is believed for a minute.
    let mut greedy = lease("1", "other", 1);
    greedy.spec.as_mut().unwrap().lease_duration_seconds = Some(i32::MAX);
    let mut elector = Elector::new("me", Timing::default());
    elector.answered(Answer::Lease(greedy.clone()), Duration::ZERO, Duration::ZERO, 0.0);
    elector.answered(Answer::Lease(greedy), 60 * SECOND, 60 * SECOND, 0.0);
    assert_eq!(written(&elector.step(60 * SECOND)).term, 2);
}

#[test]
fn a_claim_keeps_what_others_wrote() {
    let mut theirs = lease("5", "other", 2);
    theirs.metadata.labels = Some([("team".to_owned(), "edge".to_owned())].into());
    let claim =
        Claim { holder: Some("me".into()), duration: SECOND, term: 3, transitions: 2, acquires: true };
    let ours = claim.write(Some(&theirs), "portreeve", jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(ours.metadata.labels, theirs.metadata.labels);
    assert_eq!(ours.metadata.resource_version.as_deref(), Some("5"));
}

#[test]
fn only_a_holder_gives_up() {
    assert_eq!(elector().release(), None);
    let mut elector = leader();
    let action = elector.release().unwrap();
    let claim = written(&action);
    assert_eq!((claim.holder.as_deref(), claim.term), (None, 8));
    assert_eq!(elector.reign(MS), None);
}

//! Durations. Source: GEP-2257: up to four pairs of up to five digits and a unit: h, m, s or ms.

/// The milliseconds of a duration; `None` where the text is none.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let (mut total, mut pairs) = (0, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let units = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        pairs += 1;
        if !(1..=5).contains(&digits) || pairs > 4 {
            return None;
        }
        total += number.parse::<u64>().ok()? * factor;
        rest = &after[unit.len()..];
    }
    (pairs > 0).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn durations_are_pairs_of_number_and_unit() {
        for (text, want) in [
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("99999h", Some(99_999 * 3_600_000)),
            ("", None),
            ("10", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("123456s", None),
            ("1s1s1s1s1s", None),
            ("1d", None),
        ] {
            assert_eq!(milliseconds(text), want, "{text}");
        }
    }
}

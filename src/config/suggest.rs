//! "Did you mean": the known name closest to a mistyped one.

/// The candidate that differs by few enough slips to be what was meant: insertions, deletions, replacements and swaps
/// of neighbours.
pub fn closest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let slips_max = (typed.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(typed, candidate), candidate))
        .filter(|(slips, _)| *slips <= slips_max)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_close() {
        let names = ["workers", "threads", "timeout"];
        assert_eq!(closest("wokers", names), Some("workers"));
        assert_eq!(closest("wrokers", names), Some("workers"));
        assert_eq!(closest("time_out", names), Some("timeout"));
        assert_eq!(closest("database", names), None);
        assert_eq!(closest("x", names), None);
    }
}

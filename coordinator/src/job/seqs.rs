//! Which log lines of a job are known, as ranges of `seq`: lines may come late, twice and in any order.

use std::collections::BTreeMap;

/// More gaps than this are not taken: an honest agent sends its lines in order, but for what a break leaves out.
const MOST_RANGES: usize = 10_000;

/// A set of numbers that is mostly one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seqs(BTreeMap<i64, i64>);

impl Seqs {
    /// The set of these ranges, both ends included.
    pub(super) fn from_ranges(ranges: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let mut seqs = Self::default();
        for (first, last) in ranges {
            seqs.insert_range(first, last);
        }
        seqs
    }

    /// Whether `seq` is in it.
    pub(super) fn contains(&self, seq: i64) -> bool {
        self.0.range(..=seq).next_back().is_some_and(|(_, &last)| seq <= last)
    }

    /// Adds `seq`; false if it was in already, or would be one gap too many.
    pub(super) fn insert(&mut self, seq: i64) -> bool {
        let new = !self.contains(seq) && (self.0.len() < MOST_RANGES || self.touches(seq));
        if new {
            self.insert_range(seq, seq);
        }
        new
    }

    /// Adds a range of which nothing is in it yet; false if something is, or it would be one gap too many.
    pub(super) fn insert_new_range(&mut self, first: i64, last: i64) -> bool {
        let before = self.0.range(..=last).next_back();
        let new = before.is_none_or(|(_, &end)| end < first)
            && (self.0.len() < MOST_RANGES || self.touches(first) || self.touches(last));
        if new {
            self.insert_range(first, last);
        }
        new
    }

    /// Whether `seq` is right behind or right before a range.
    fn touches(&self, seq: i64) -> bool {
        let next_to = |seq: Option<i64>| seq.is_some_and(|seq| self.contains(seq));
        next_to(seq.checked_sub(1)) || next_to(seq.checked_add(1))
    }

    fn insert_range(&mut self, mut first: i64, mut last: i64) {
        // Joins what touches the new range from the left, then all that it covers or touches on the right.
        if let Some((&start, &end)) = self.0.range(..=first).next_back()
            && end >= first.saturating_sub(1)
        {
            first = start;
            last = last.max(end);
        }
        while let Some((&start, &end)) = self.0.range(first..=last.saturating_add(1)).next() {
            self.0.remove(&start);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_ends_of_the_number_line_are_numbers_like_any() {
        let mut seqs = Seqs::default();
        assert!(seqs.insert(i64::MAX) && seqs.insert(i64::MIN));
        assert!(!seqs.insert(i64::MAX) && !seqs.insert(i64::MIN));
    }

    #[test]
    fn there_is_a_bound_to_the_gaps() {
        let mut seqs = Seqs::default();
        let taken = (0..).step_by(2).take(MOST_RANGES + 5).filter(|&seq| seqs.insert(seq)).count();
        assert_eq!(taken, MOST_RANGES);
        assert!(seqs.insert(1) && seqs.insert(2 * MOST_RANGES as i64 - 1), "what fills a gap or goes on is taken");
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(numbers in prop::collection::vec(-20_i64..20, 0..60)) {
            let (mut seqs, mut set) = (Seqs::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(seqs.insert(number), set.insert(number));
            }
            let mut copy = seqs.clone();
            for first in -21..20 {
                let free = !set.contains(&first) && !set.contains(&(first + 1));
                let mut seqs = copy.clone();
                prop_assert_eq!(seqs.insert_new_range(first, first + 1), free);
            }
            prop_assert!(copy.insert_new_range(100, 200) && copy.contains(150) && !copy.insert_new_range(200, 300));
            for number in -21..21 {
                prop_assert_eq!(seqs.contains(number), set.contains(&number));
            }
            let gaps = set.iter().zip(set.iter().skip(1)).filter(|(a, b)| **a + 1 < **b).count();
            prop_assert_eq!(seqs.0.len(), if set.is_empty() { 0 } else { gaps + 1 });
        }
    }
}

//! Which host of the ledger an entry of the document means: the one of that name in that repository; or the only one of that
//! name that has no repository yet, which then gets it. A document never moves a host from one repository to another.

use super::ledger::Ledger;
use super::wanted::WantedHost;
use std::collections::HashMap;

/// Which entry means which host, both by their places in their lists.
#[derive(Debug, Default)]
pub(super) struct Matching {
    /// The entry that means a host.
    pub(super) entry_of: HashMap<usize, usize>,
    /// The entries that mean none, and why.
    pub(super) pending: Vec<(usize, &'static str)>,
}

type Places<'a> = HashMap<(&'a str, Option<&'a str>), Vec<usize>>;

/// Finds the hosts of all entries.
pub(super) fn matching(entries: &[WantedHost], ledger: &Ledger) -> Matching {
    let names = ledger.names();
    let mut places = Places::new();
    for (index, host) in ledger.hosts.iter().enumerate() {
        let repository = host.row.repository_id.and_then(|id| names.get(&id)).copied();
        places.entry((&host.row.hostname, repository)).or_default().push(index);
    }
    let mut found = Matching::default();
    let mut open = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        match places.get(&(entry.hostname.as_str(), entry.repository.as_deref())).map(Vec::as_slice) {
            Some([one]) => {
                found.entry_of.insert(*one, number);
            }
            Some(_) => found.pending.push((number, "several hosts of this name have no repository: give them one")),
            None => open.push(number),
        }
    }
    let mut asked: HashMap<&str, usize> = HashMap::new();
    for number in &open {
        *asked.entry(&entries[*number].hostname).or_default() += 1;
    }
    for number in open {
        let name = entries[number].hostname.as_str();
        match places.get(&(name, None)).map(Vec::as_slice) {
            Some([one]) if !found.entry_of.contains_key(one) && asked[name] == 1 => {
                found.entry_of.insert(*one, number);
            }
            _ => found.pending.push((number, "no host of this name is enrolled there yet")),
        }
    }
    found.pending.sort_unstable();
    found
}

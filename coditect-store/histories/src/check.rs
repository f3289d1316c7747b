//! Checks whether a history is strictly serializable.
//!
//! Lists and registers are reduced to registers: a list has the number at its end, and the longest
//! observed list gives the order of its writes. For each read, every other writer of that register
//! precedes the observed writer, or follows the reader. Each known fact implies others until
//! nothing follows; remaining choices are tried both ways. (A polygraph: C. Tan et al., "Cobra:
//! Making Transactional Key-Value Stores Verifiably Serializable", 2020.)

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Call, Key, Outcome,
    order::{Circle, Order, Why},
    outside::Outside,
};

/// Maximum number of choices tried before giving up.
const TRIES: u32 = 100_000;
/// Maximum number of calls with unknown outcome whose combinations are tried, where they may cause
/// a rejection.
const UNSEEN: usize = 10;

/// The initial state, before all calls.
const BEGINNING: usize = 0;

/// Returns the fault of a history; `None` if it is strictly serializable.
pub fn fault(calls: &[Call]) -> Option<String> {
    let outsides = match calls.iter().map(Outside::of).collect::<Result<Vec<_>, _>>() {
        Ok(outsides) => outsides,
        Err(fault) => return Some(fault),
    };
    let found = fault_with(calls, &outsides, &BTreeSet::new())?;
    let unseen = unseen(calls, &outsides);
    let done = (1..1_u32 << unseen.len()).map(|choice| {
        let is_chosen = |at: &usize| choice >> at & 1 == 1;
        (0..unseen.len()).filter(is_chosen).map(|at| unseen[at]).collect()
    });
    done.map(|done| fault_with(calls, &outsides, &done)).all(|it| it.is_some()).then_some(found)
}

/// Returns the calls of unknown outcome without an observer that may explain why a call was
/// rejected. For other such calls it makes no difference whether they committed.
fn unseen(calls: &[Call], outsides: &[Outside]) -> Vec<usize> {
    let differing: BTreeSet<Key> =
        outsides.iter().flat_map(|it| &it.others).map(|(key, _)| *key).collect();
    let unknown = (0..calls.len()).filter(|at| {
        let is_one = |(key, _): &(Key, u32)| differing.contains(key);
        calls[*at].outcome == Outcome::Unknown && outsides[*at].writes.iter().any(is_one)
    });
    unknown.filter(|at| !outsides[*at].is_blind()).take(UNSEEN).collect()
}

/// Returns the fault, assuming that of the unobserved calls exactly `done` committed.
fn fault_with(calls: &[Call], outsides: &[Outside], done: &BTreeSet<usize>) -> Option<String> {
    let question = match Question::of(calls, outsides, done) {
        Ok(question) => question,
        Err(fault) => return Some(fault),
    };
    let mut left = TRIES;
    match question.begun().and_then(|order| question.answer(order, &mut left)) {
        Ok(()) => None,
        Err(_) if left == 0 => Some(format!("no order was found by {TRIES} tries")),
        Err(circle) => Some(question.told(&circle)),
    }
}

/// The search for an order of the committed calls, numbered from [`BEGINNING`].
struct Question<'a> {
    calls: Vec<&'a Call>,
    /// Writers of each register or list.
    writers: BTreeMap<Key, Vec<usize>>,
    /// Observers: reader, register and writer.
    reads: BTreeSet<(Key, usize, usize)>,
    /// Observers of a different value.
    others: BTreeSet<(Key, usize, usize)>,
    /// Known orders of writes in a list.
    listed: Vec<(Key, usize, usize)>,
}

impl<'a> Question<'a> {
    fn of(calls: &'a [Call], outsides: &[Outside], done: &BTreeSet<usize>) -> Result<Self, String> {
        let mut author = BTreeMap::new();
        for (at, outside) in outsides.iter().enumerate() {
            let writes = outside.writes.iter().chain(&outside.passing).chain(&outside.appends);
            for (key, number) in writes {
                if author.insert((*key, *number), at).is_some_and(|by| by != at) {
                    return Err(format!(
                        "{number} is written to {key} twice: the history is no good"
                    ));
                }
            }
        }
        let counts = counting(calls, outsides, &author, done)?;

        let numbers: BTreeMap<usize, usize> = counts.iter().copied().zip(1..).collect();
        let mut question = Self {
            calls: counts.iter().map(|at| &calls[*at]).collect(),
            writers: BTreeMap::new(),
            reads: BTreeSet::new(),
            others: BTreeSet::new(),
            listed: Vec::new(),
        };
        let writer = |key, number| {
            if number == 0 { BEGINNING } else { numbers[&author[&(key, number)]] }
        };
        for (at, node) in &numbers {
            let outside = &outsides[*at];
            if calls[*at].outcome != Outcome::GivenUp {
                for (key, _) in outside.writes.iter().chain(&outside.appends) {
                    let writers = question.writers.entry(key).or_insert_with(|| vec![BEGINNING]);
                    if writers.last() != Some(node) {
                        writers.push(*node);
                    }
                }
            }
            for (key, seen) in &outside.lists {
                let last = seen.last().map_or(BEGINNING, |last| writer(key, *last));
                question.reads.insert((key, last, *node));
            }
            question
                .reads
                .extend(outside.reads.iter().map(|(key, it)| (*key, writer(key, *it), *node)));
            for (key, number) in &outside.others {
                // A number that never existed differs from all.
                let was_there = author.get(&(*key, *number)).is_some_and(|by| {
                    let is_passing = outsides[*by].passing.contains(&(*key, *number));
                    counts.contains(by) && calls[*by].outcome != Outcome::GivenUp && !is_passing
                });
                if *number == 0 || was_there {
                    question.others.insert((key, writer(key, *number), *node));
                }
            }
        }
        for (key, list) in longest(counts.iter().map(|at| &outsides[*at]))? {
            for by in list.iter().map(|number| author[&(key, *number)]) {
                let mut appends = outsides[by].appends.iter().filter(|(to, _)| *to == key);
                if let Some((_, number)) = appends.find(|(_, number)| !list.contains(number)) {
                    return Err(format!("{number} is not in {key} = {list:?}: {}", calls[by]));
                }
            }
            let order: Vec<_> = list.iter().map(|number| writer(key, *number)).collect();
            question.listed.extend(order.windows(2).map(|two| (key, two[0], two[1])));
            // Unobserved numbers follow the observed ones.
            if let Some(last) = order.last() {
                let unseen = question.writers[key].iter().filter(|it| !order.contains(it));
                question.listed.extend(unseen.map(|it| (key, *last, *it)));
            }
        }
        // Numbers of one transaction are consecutive.
        question.listed.retain(|(_, one, other)| one != other && *other != BEGINNING);
        Ok(question)
    }

    /// Returns the initial order: the clock, and the lists.
    fn begun(&self) -> Result<Order, Circle> {
        let mut order = Order::new(self.calls.len() + 1);
        for node in 1..=self.calls.len() {
            order.put(BEGINNING, node, Why::Clock)?;
        }
        let end = |call: &Call| if call.outcome == Outcome::Unknown { u64::MAX } else { call.to };
        let mut by_end: Vec<_> =
            (1..).zip(&self.calls).map(|(node, call)| (end(call), node)).collect();
        let mut by_begin: Vec<_> =
            (1..).zip(&self.calls).map(|(node, call)| (call.from, node)).collect();
        by_end.sort_unstable();
        by_begin.sort_unstable();
        for (from, node) in by_begin {
            // The latest first, which implies most of the others.
            for (_, before) in by_end[..by_end.partition_point(|(end, _)| *end < from)].iter().rev()
            {
                order.put(*before, node, Why::Clock)?;
            }
        }
        for (key, one, other) in &self.listed {
            order.put(*one, *other, Why::Replaced(key))?;
        }
        for (key, writer, reader) in &self.reads {
            order.put(*writer, *reader, Why::Seen(key))?;
        }
        Ok(order)
    }

    /// Returns whether `order` can be completed.
    fn answer(&self, mut order: Order, left: &mut u32) -> Result<(), Circle> {
        while self.follow(&mut order)? {}
        let Some((one, other)) = self.open(&order) else { return Ok(()) };
        *left = left.saturating_sub(1);
        let mut tried = order.clone();
        tried.put(one, other, Why::Tried)?;
        match self.answer(tried, left) {
            Err(_) if *left > 0 => {
                order.put(other, one, Why::Tried)?;
                self.answer(order, left)
            }
            answer => answer,
        }
    }

    /// Adds the consequences of `order`, and returns whether there were any.
    fn follow(&self, order: &mut Order) -> Result<bool, Circle> {
        let mut is_more = false;
        for (key, writer, reader) in &self.reads {
            for other in &self.writers_beside(key, &[*writer, *reader]) {
                if order.has(*writer, *other) {
                    is_more |= order.put(*reader, *other, Why::Missed(key))?;
                } else if order.has(*other, *reader) {
                    is_more |= order.put(*other, *writer, Why::Replaced(key))?;
                }
            }
        }
        for (key, writer, reader) in &self.others {
            let (next, is_between) = self.between(order, key, (*writer, *reader));
            match next[..] {
                _ if is_between => {}
                [] => is_more |= order.put(*reader, *writer, Why::Differed(key))?,
                [first] if order.has(*writer, *reader) => {
                    is_more |= order.put(*writer, first, Why::Between(key))?;
                    is_more |= order.put(first, *reader, Why::Between(key))?;
                }
                _ => {}
            }
        }
        Ok(is_more)
    }

    /// Returns the writers that may be between `writer` and `reader`, and whether one of them must
    /// be, or the reader must come first.
    fn between(
        &self,
        order: &Order,
        key: Key,
        (writer, reader): (usize, usize),
    ) -> (Vec<usize>, bool) {
        let mut next = self.writers_beside(key, &[writer, reader]);
        next.retain(|it| !order.has(*it, writer) && !order.has(reader, *it));
        let is_between = order.has(reader, writer)
            || next.iter().any(|it| order.has(writer, *it) && order.has(*it, reader));
        (next, is_between)
    }

    /// Returns two calls whose order is undecided.
    fn open(&self, order: &Order) -> Option<(usize, usize)> {
        let is_open = |one, other| !order.has(one, other) && !order.has(other, one);
        for (key, writer, reader) in &self.reads {
            for other in self.writers_beside(key, &[*writer, *reader]) {
                if is_open(*writer, other) {
                    return Some((other, *writer));
                }
            }
        }
        self.others.iter().find_map(|(key, writer, reader)| {
            let (next, is_between) = self.between(order, key, (*writer, *reader));
            if is_between {
                return None;
            }
            let pairs = next.iter().flat_map(|it| [(*writer, *it), (*it, *reader)]);
            [(*writer, *reader)].into_iter().chain(pairs).find(|(one, other)| is_open(*one, *other))
        })
    }

    fn writers_beside(&self, key: Key, those: &[usize]) -> Vec<usize> {
        let writers = self.writers.get(key).into_iter().flatten();
        writers.copied().filter(|it| !those.contains(it)).collect()
    }

    fn told(&self, Circle(circle): &Circle) -> String {
        let mut told = "each before the next, in a circle:".to_owned();
        for (node, why) in circle {
            let call = node.checked_sub(1).map(|at| self.calls[at].to_string());
            let call = call.unwrap_or_else(|| "the beginning".to_owned());
            told.extend(["\n  ", &call, "\n    ", &why.to_string()]);
        }
        told
    }
}

/// Returns the relevant calls: committed ones, the reads of aborted ones, and calls of unknown
/// outcome that are observed or in `done`. Calls that observed nothing are included, since they may
/// commit after all others.
fn counting(
    calls: &[Call],
    outsides: &[Outside],
    author: &BTreeMap<(Key, u32), usize>,
    done: &BTreeSet<usize>,
) -> Result<BTreeSet<usize>, String> {
    let is_known = |at: &usize| calls[*at].outcome != Outcome::Unknown || outsides[*at].is_blind();
    let known = (0..calls.len()).filter(|at| is_known(at) || done.contains(at));
    let mut counts: BTreeSet<_> = known.collect();
    let mut looked_at: Vec<_> = counts.iter().copied().collect();
    while let Some(at) = looked_at.pop() {
        for (key, number) in outsides[at].seen() {
            let seer = &calls[at];
            let Some(by) = author.get(&(key, number)) else {
                return Err(format!("nobody wrote {number} to {key}: {seer}"));
            };
            if *by == at {
                return Err(format!("sees {number} in {key} before it writes it: {seer}"));
            }
            if calls[*by].outcome == Outcome::GivenUp {
                return Err(format!("{number} in {key} was given up: {seer}"));
            }
            if counts.insert(*by) {
                looked_at.push(*by);
            }
        }
        if let Some((key, number)) = outsides[at].last_seen().find(|(key, number)| {
            let by = author.get(&(*key, *number));
            by.is_some_and(|by| outsides[*by].passing.contains(&(*key, *number)))
        }) {
            let seer = &calls[at];
            return Err(format!("{number} was last in {key} in the middle of another: {seer}"));
        }
    }
    Ok(counts)
}

/// Returns the longest version of each list, of which all others are prefixes.
fn longest<'a>(
    outsides: impl Iterator<Item = &'a Outside>,
) -> Result<BTreeMap<Key, &'a [u32]>, String> {
    let mut longest = BTreeMap::<Key, &[u32]>::new();
    for (key, seen) in outsides.flat_map(|outside| &outside.lists) {
        let known = longest.entry(key).or_default();
        let (short, long) =
            if seen.len() < known.len() { (&**seen, *known) } else { (*known, &**seen) };
        if !long.starts_with(short) {
            return Err(format!("{key} was seen as {short:?} and as {long:?}"));
        }
        *known = long;
    }
    for (key, seen) in &longest {
        let once: BTreeSet<_> = seen.iter().collect();
        if once.len() < seen.len() {
            return Err(format!("a number is in {key} twice: {seen:?}"));
        }
    }
    Ok(longest)
}

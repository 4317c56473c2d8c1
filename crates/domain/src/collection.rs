//! Collections: groups of devices that an administrator names, and the rules that choose their
//! members.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::filter::{Boundary, Filter, Subject};
use crate::state::words;
use crate::{BaselineName, ComplianceState, DeviceState, Timestamp};

crate::name::names! {
    CollectionName = "a collection's name",
}

/// What makes devices members, beside being named (direct rules). A device is a member when it is
/// named, meant by the query, or a member of an included collection; and it is a member of the
/// limiting collection, and of no excluded one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionRules {
    /// The limiting collection: nobody outside of it becomes a member.
    #[serde(default = "all_devices")]
    pub limited_to: CollectionName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<Filter>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub include: BTreeSet<CollectionName>,
    /// Wins over everything else.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exclude: BTreeSet<CollectionName>,
}

impl Default for CollectionRules {
    fn default() -> Self {
        Self {
            limited_to: all_devices(),
            query: None,
            include: BTreeSet::new(),
            exclude: BTreeSet::new(),
        }
    }
}

fn all_devices() -> CollectionName {
    BuiltInCollection::AllDevices.name()
}

words! {
    /// Collections that every site has, and nobody changes.
    BuiltInCollection {
        /// Every record of a computer that is managed: active ones, and those that are blocked for now.
        AllDevices = "All Devices",
        AllMacs = "All Macs",
        AllLinux = "All Linux",
        ExpiresWithin45Days = "Certificate expires within 45 days",
        ExpiresWithin3Days = "Certificate expires within 3 days",
        Expired = "Certificate expired",
        NeverCheckedIn = "Never checked in",
        /// Records whose place another one took.
        Obsolete = "Obsolete",
    }
}

impl BuiltInCollection {
    pub fn name(self) -> CollectionName {
        CollectionName(self.word().to_owned())
    }

    /// Its query, in the filter language.
    pub const fn query(self) -> &'static str {
        match self {
            Self::AllDevices => r#"device.state in ["active", "blocked"]"#,
            Self::AllMacs => r#"os.name == "macOS""#,
            Self::AllLinux => r#"os.name == "Linux""#,
            Self::ExpiresWithin45Days => "certificate.days_left >= 0 && certificate.days_left < 45",
            Self::ExpiresWithin3Days => "certificate.days_left >= 0 && certificate.days_left < 3",
            Self::Expired => "certificate.days_left < 0",
            Self::NeverCheckedIn => "device.last_seen_days_ago == null",
            Self::Obsolete => r#"device.state == "obsolete""#,
        }
    }

    pub const fn limited_to(self) -> Option<Self> {
        match self {
            Self::AllDevices | Self::Obsolete => None,
            _ => Some(Self::AllDevices),
        }
    }
}

/// All collections of a site with their rules, each after those that it depends on. `K` names a
/// collection.
#[derive(Debug, Clone)]
pub struct Collections<K> {
    ordered: Vec<(K, Rules<K>)>,
    deployed: Vec<Deployed<K>>,
}

/// The rules of one collection among others.
#[derive(Debug, Clone)]
pub struct Rules<K> {
    pub limited_to: Option<K>,
    pub query: Option<Filter>,
    pub include: Vec<K>,
    pub exclude: Vec<K>,
}

/// A deployment of a baseline to a collection.
#[derive(Debug, Clone)]
pub struct Deployed<K> {
    pub deployment: i64,
    pub baseline: BaselineName,
    pub collection: K,
}

/// Collections that depend on each other: each on the next one, and the last one on the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circle<K> {
    pub path: Vec<K>,
    /// A baseline by whose state one of them chooses its members, while it is deployed to the next
    /// one. Without it, the circle is of rules alone.
    pub baseline: Option<BaselineName>,
}

impl<K: Ord + Copy> Collections<K> {
    /// # Errors
    /// When some depend on each other in a circle. Members that are chosen by what their own
    /// deployments find out would come and go for ever, so that is a circle, too.
    pub fn new(
        mut rules: BTreeMap<K, Rules<K>>,
        deployed: Vec<Deployed<K>>,
    ) -> Result<Self, Circle<K>> {
        let needs: BTreeMap<K, Vec<Need<'_, K>>> = rules
            .iter()
            .map(|(key, rules)| (*key, rules.needs(&deployed)))
            .collect();
        let mut visit = Visit {
            needs: &needs,
            done: BTreeSet::new(),
            order: Vec::with_capacity(rules.len()),
            path: Vec::new(),
        };
        for key in rules.keys() {
            visit.enter(*key, None)?;
        }
        let order = visit.order;
        let ordered = order
            .into_iter()
            .filter_map(|key| Some((key, rules.remove(&key)?)))
            .collect();
        Ok(Self { ordered, deployed })
    }

    /// Each with its rules, after those that it depends on.
    pub fn iter(&self) -> impl Iterator<Item = (K, &Rules<K>)> {
        self.ordered.iter().map(|(key, rules)| (*key, rules))
    }

    /// The collections that a device is a member of. `named` says which ones name it, and `states`
    /// how deployments stand on it. (What `subject` has of compliance is not looked at: it depends
    /// on memberships.)
    pub fn of_device(
        &self,
        mut subject: Subject,
        named: &BTreeSet<K>,
        states: &BTreeMap<i64, ComplianceState>,
        now: Timestamp,
    ) -> BTreeSet<K> {
        let mut found = BTreeSet::new();
        if subject.state == DeviceState::Deleted {
            return found;
        }
        for (key, rules) in &self.ordered {
            let within = |other: &K| found.contains(other);
            let mut chosen = named.contains(key) || rules.include.iter().any(within);
            if let Some(query) = &rules.query
                && !chosen
            {
                let asked = query.baselines();
                if !asked.is_empty() {
                    subject.compliance = self.compliance(&asked, &found, states);
                }
                chosen = query.matches(&subject, now);
            }
            if chosen
                && rules.limited_to.as_ref().is_none_or(within)
                && !rules.exclude.iter().any(within)
            {
                found.insert(*key);
            }
        }
        found
    }

    /// How baselines stand on a member of some collections: of several deployments of one, the
    /// greatest state. What was not reported is unknown.
    fn compliance(
        &self,
        asked: &BTreeSet<BaselineName>,
        member_of: &BTreeSet<K>,
        states: &BTreeMap<i64, ComplianceState>,
    ) -> BTreeMap<BaselineName, ComplianceState> {
        let mut found = BTreeMap::new();
        for deployed in &self.deployed {
            if asked.contains(&deployed.baseline) && member_of.contains(&deployed.collection) {
                let state = states.get(&deployed.deployment).copied();
                let state = state.unwrap_or(ComplianceState::Unknown);
                let greatest = found.entry(deployed.baseline.clone()).or_insert(state);
                *greatest = state.max(*greatest);
            }
        }
        found
    }

    /// A collection and all whose members depend on its members, in their order.
    pub fn with_dependents(&self, of: K) -> Vec<K> {
        let mut found = BTreeSet::from([of]);
        let mut ordered = vec![of];
        for (key, rules) in &self.ordered {
            let needs = rules.needs(&self.deployed);
            if needs.iter().any(|need| found.contains(&need.collection)) && found.insert(*key) {
                ordered.push(*key);
            }
        }
        ordered
    }

    /// The deployments whose states decide about members.
    pub fn asked_deployments(&self) -> Vec<i64> {
        let queries = self.iter().filter_map(|(_, rules)| rules.query.as_ref());
        let asked: BTreeSet<_> = queries.flat_map(Filter::baselines).collect();
        let deployed = self.deployed.iter();
        deployed
            .filter(|deployed| asked.contains(&deployed.baseline))
            .map(|deployed| deployed.deployment)
            .collect()
    }

    /// The collections whose members are chosen by how devices comply, by their own query or by that of
    /// one that they depend on.
    pub fn chosen_by_compliance(&self) -> BTreeSet<K> {
        let mut found = BTreeSet::new();
        for (key, rules) in &self.ordered {
            let asks = |query: &Filter| !query.baselines().is_empty();
            let others = rules.include.iter().chain(&rules.exclude);
            let mut others = others.chain(&rules.limited_to);
            if rules.query.as_ref().is_some_and(asks) || others.any(|other| found.contains(other)) {
                found.insert(*key);
            }
        }
        found
    }

    /// At which numbers of days members change by time alone.
    pub fn boundaries(&self) -> BTreeSet<Boundary> {
        let queries = self.iter().filter_map(|(_, rules)| rules.query.as_ref());
        queries.flat_map(Filter::boundaries).collect()
    }
}

/// A collection that another one depends on, and the baseline that makes it so, if one does.
struct Need<'a, K> {
    collection: K,
    baseline: Option<&'a BaselineName>,
}

impl<K: Ord + Copy> Rules<K> {
    fn needs<'a>(&self, deployed: &'a [Deployed<K>]) -> Vec<Need<'a, K>> {
        let others = self.include.iter().chain(&self.exclude);
        let mut needs: Vec<_> = others
            .chain(&self.limited_to)
            .map(|other| Need {
                collection: *other,
                baseline: None,
            })
            .collect();
        let asked = self
            .query
            .as_ref()
            .map(Filter::baselines)
            .unwrap_or_default();
        let deployed = deployed
            .iter()
            .filter(|deployed| asked.contains(&deployed.baseline));
        needs.extend(deployed.map(|deployed| Need {
            collection: deployed.collection,
            baseline: Some(&deployed.baseline),
        }));
        needs
    }
}

/// A walk through collections in depth.
struct Visit<'a, K> {
    needs: &'a BTreeMap<K, Vec<Need<'a, K>>>,
    done: BTreeSet<K>,
    order: Vec<K>,
    /// From where it began, each with the baseline that led to it.
    path: Vec<(K, Option<&'a BaselineName>)>,
}

impl<'a, K: Ord + Copy> Visit<'a, K> {
    fn enter(&mut self, key: K, by: Option<&'a BaselineName>) -> Result<(), Circle<K>> {
        if self.done.contains(&key) {
            return Ok(());
        }
        if let Some(begin) = self.path.iter().position(|(on_path, _)| *on_path == key) {
            let path = &self.path[begin..];
            let within = path[1..].iter().find_map(|(_, by)| *by);
            return Err(Circle {
                path: path.iter().map(|(key, _)| *key).collect(),
                baseline: by.or(within).cloned(),
            });
        }
        self.path.push((key, by));
        for need in self.needs.get(&key).into_iter().flatten() {
            self.enter(need.collection, need.baseline)?;
        }
        self.path.pop();
        self.done.insert(key);
        self.order.push(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_length_and_nothing_hidden() {
        for good in ["a", " Labs / north ", &"ü".repeat(127), "' or 1=1 --"] {
            assert_eq!(
                good.parse::<CollectionName>().expect(good).as_str(),
                good.trim()
            );
        }
        for bad in [
            "",
            "   ",
            &"a".repeat(128),
            "a\u{1b}[31m",
            "a\nb",
            "a\0",
            "a\n",
        ] {
            let refused = bad.parse::<CollectionName>().expect_err(bad);
            assert_eq!(
                refused.to_string(),
                "a collection's name has 1 to 127 characters, none of them a control character"
            );
        }
    }

    #[test]
    fn the_built_ins_have_names_and_queries() {
        for built_in in BuiltInCollection::ALL {
            assert_eq!(built_in.word().parse(), Ok(built_in.name()));
            let query: Filter = built_in.query().parse().expect("a filter");
            assert_eq!(query.to_string(), built_in.query(), "the shortest form");
        }
    }

    fn rules(limited_to: Option<u8>, include: &[u8], exclude: &[u8]) -> Rules<u8> {
        Rules {
            limited_to,
            query: None,
            include: include.to_vec(),
            exclude: exclude.to_vec(),
        }
    }

    #[test]
    fn a_collection_comes_after_those_that_it_depends_on_or_the_circle_is_named() {
        let good = BTreeMap::from([
            (1, rules(None, &[], &[])),
            (2, rules(Some(4), &[], &[3])),
            (3, rules(Some(1), &[], &[])),
            (4, rules(Some(1), &[3], &[])),
        ]);
        let collections = Collections::new(good.clone(), Vec::new()).expect("no circle");
        let order: Vec<_> = collections.iter().map(|(key, _)| key).collect();
        assert_eq!(order, [1, 3, 4, 2]);
        assert_eq!(collections.with_dependents(3), [3, 4, 2]);
        assert_eq!(collections.with_dependents(2), [2]);
        let mut bad = good;
        bad.insert(3, rules(Some(1), &[], &[2]));
        let circle = Collections::new(bad, Vec::new()).expect_err("2 needs 3");
        assert_eq!((circle.path, circle.baseline), (vec![2, 3], None));
        let own = BTreeMap::from([(1, rules(Some(1), &[], &[]))]);
        let circle = Collections::new(own, Vec::new()).expect_err("1 needs 1");
        assert_eq!(circle.path, [1]);
    }

    #[test]
    fn members_do_not_depend_on_what_their_own_deployments_find_out() {
        let failing = Rules {
            query: "compliance[\"CIS\"] == \"non-compliant\"".parse().ok(),
            ..rules(Some(0), &[], &[])
        };
        let all = BTreeMap::from([
            (0, rules(None, &[], &[])),
            (1, failing),
            (2, rules(Some(0), &[1], &[])),
        ]);
        let cis: BaselineName = "CIS".parse().expect("a name");
        let deployed = |collection| {
            vec![Deployed {
                deployment: 7,
                baseline: cis.clone(),
                collection,
            }]
        };
        let collections = Collections::new(all.clone(), deployed(0)).expect("no circle");
        assert_eq!(collections.asked_deployments(), [7]);
        assert_eq!(collections.with_dependents(0), [0, 1, 2]);
        for (collection, path) in [(1, vec![1]), (2, vec![1, 2])] {
            let circle = Collections::new(all.clone(), deployed(collection)).expect_err("a circle");
            assert_eq!((circle.path, circle.baseline), (path, Some(cis.clone())));
        }
        let other = vec![Deployed {
            baseline: "other".parse().expect("a name"),
            ..deployed(2).remove(0)
        }];
        assert!(Collections::new(all, other).is_ok());
    }

    #[test]
    fn exclude_wins_and_nobody_is_a_member_beyond_the_limiting_collection() {
        let subject = Subject {
            state: DeviceState::Active,
            user_name: "ann".to_owned(),
            facts: crate::DeviceFacts::default(),
            enrolled_at: Timestamp::UNIX_EPOCH,
            last_seen: None,
            certificate_end: None,
            compliance: BTreeMap::new(),
        };
        let all = Rules {
            query: BuiltInCollection::AllDevices.query().parse().ok(),
            ..rules(None, &[], &[])
        };
        let collections = Collections::new(
            BTreeMap::from([
                (0, all),
                (1, rules(Some(0), &[], &[])),
                (2, rules(Some(0), &[1], &[])),
                (3, rules(Some(0), &[1], &[2])),
                (4, rules(Some(3), &[], &[])),
            ]),
            Vec::new(),
        )
        .expect("no circle");
        let of = |subject: &Subject, named: &[u8]| {
            let named = named.iter().copied().collect();
            let states = BTreeMap::new();
            let found =
                collections.of_device(subject.clone(), &named, &states, Timestamp::UNIX_EPOCH);
            found.into_iter().collect::<Vec<_>>()
        };
        for (named, members) in [
            (&[][..], &[0][..]),
            (&[1], &[0, 1, 2]),
            (&[3], &[0, 3]),
            // Named by 3, and excluded from it as a member of 2.
            (&[1, 3], &[0, 1, 2]),
            (&[4], &[0]),
            (&[3, 4], &[0, 3, 4]),
        ] {
            assert_eq!(of(&subject, named), members, "{named:?}");
        }
        for state in [DeviceState::Retired, DeviceState::Deleted] {
            let ended = Subject {
                state,
                ..subject.clone()
            };
            assert!(of(&ended, &[1, 3]).is_empty(), "{state}");
        }
    }
}

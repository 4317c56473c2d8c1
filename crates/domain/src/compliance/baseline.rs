//! Configuration baselines: configuration items and other baselines under one name.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{BaselineName, ItemName};

/// What a baseline says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineContent {
    #[serde(default)]
    pub description: String,
    /// A baseline that is not enabled is evaluated nowhere.
    #[serde(default = "enabled")]
    pub enabled: bool,
    pub parts: Vec<BaselinePart>,
}

const fn enabled() -> bool {
    true
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum BaselinePart {
    Item {
        name: ItemName,
        /// None: always the latest one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<u32>,
    },
    Baseline {
        name: BaselineName,
    },
}

/// Why something is no baseline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBaseline {
    #[error("a baseline has 1 to 1000 parts: configuration items and other baselines")]
    Parts,
    #[error("the configuration item `{0}` is there twice")]
    ItemTwice(ItemName),
    #[error("the baseline `{0}` is there twice")]
    BaselineTwice(BaselineName),
    #[error("revisions are counted from 1")]
    Revision,
    #[error("a description has at most 4096 characters, and no control characters but line ends")]
    Description,
}

impl BaselineContent {
    pub const MOST_PARTS: usize = 1_000;

    /// # Errors
    /// When its parts do not fit together.
    pub fn check(&self) -> Result<(), InvalidBaseline> {
        if !(1..=Self::MOST_PARTS).contains(&self.parts.len()) {
            return Err(InvalidBaseline::Parts);
        }
        let hidden = |c: char| c.is_control() && c != '\n';
        if self.description.chars().count() > 4096 || self.description.chars().any(hidden) {
            return Err(InvalidBaseline::Description);
        }
        let (mut items, mut baselines) = (HashSet::new(), HashSet::new());
        for part in &self.parts {
            match part {
                BaselinePart::Item {
                    revision: Some(0), ..
                } => return Err(InvalidBaseline::Revision),
                BaselinePart::Item { name, .. } if !items.insert(name) => {
                    return Err(InvalidBaseline::ItemTwice(name.clone()));
                }
                BaselinePart::Baseline { name } if !baselines.insert(name) => {
                    return Err(InvalidBaseline::BaselineTwice(name.clone()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The baselines that it has as parts.
    pub fn nested(&self) -> impl Iterator<Item = &BaselineName> {
        self.parts.iter().filter_map(|part| match part {
            BaselinePart::Baseline { name } => Some(name),
            BaselinePart::Item { .. } => None,
        })
    }
}

/// Which baselines have which others as parts.
#[derive(Debug, Clone, Default)]
pub struct Nesting(HashMap<BaselineName, Vec<BaselineName>>);

/// A baseline that would be a part of itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the baseline would be a part of itself: {}", .0.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" → "))]
pub struct NestingCycle(pub Vec<BaselineName>);

impl Nesting {
    /// Says that `outer` has `inner` as parts.
    pub fn insert(&mut self, outer: BaselineName, inner: Vec<BaselineName>) {
        self.0.insert(outer, inner);
    }

    /// # Errors
    /// When a way from `start` leads back to it: the way.
    pub fn check(&self, start: &BaselineName) -> Result<(), NestingCycle> {
        let mut seen = HashSet::new();
        // Where to go on, and the way there.
        let mut open = vec![vec![start.clone()]];
        while let Some(way) = open.pop() {
            let end = way.last().expect("a way has an end");
            for inner in self.0.get(end).into_iter().flatten() {
                let mut further = way.clone();
                further.push(inner.clone());
                if inner == start {
                    return Err(NestingCycle(further));
                }
                if seen.insert(inner.clone()) {
                    open.push(further);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_told_with_its_way() {
        let name = |text: &str| text.parse::<BaselineName>().expect(text);
        let mut nesting = Nesting::default();
        nesting.insert(name("a"), vec![name("b"), name("c")]);
        nesting.insert(name("b"), vec![name("d")]);
        nesting.insert(name("c"), vec![name("d")]);
        assert_eq!(nesting.check(&name("a")), Ok(()));
        nesting.insert(name("d"), vec![name("a")]);
        let told = nesting.check(&name("a")).expect_err("a cycle").to_string();
        assert!(
            told.contains("`a` → ") && told.ends_with("`d` → `a`"),
            "{told}"
        );
        nesting.insert(name("e"), vec![name("e")]);
        assert!(nesting.check(&name("e")).is_err());
    }
}

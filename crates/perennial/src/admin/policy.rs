//! `perennial policy`.

use anyhow::Context;
use api::ApiClient;
use clock::{SystemClock, SystemRng};
use domain::{Clock, Period};
use serde_json::json;

use super::confirm;
use crate::cli::compliance::Policy;
use crate::cli::{Connection, Format};
use crate::configuration::Configuration;
use crate::folder::SiteFolder;
use crate::output::{Column, done, print, record, to_the_second};

/// A policy certificate that ends within this time is worth a word.
const SOON: Period = Period::from_days(180);

pub(super) async fn run(api: &ApiClient, command: Policy, format: Format) -> anyhow::Result<()> {
    match command {
        Policy::Show => {
            let policy = api.policy().await?;
            let shown = json!({
                "version": policy.version.to_string(),
                "certificate_not_after": policy.certificate_not_after,
                "list_lifetime": policy.list_lifetime,
            });
            let columns = [
                Column("Version (epoch.counter)", "/version"),
                Column("Policy certificate ends", "/certificate_not_after"),
                Column("Lists are good for", "/list_lifetime"),
            ];
            record(format, &shown, &columns)?;
            if format.json || format.csv {
                return Ok(());
            }
            let rotate = "make a new key: perennial policy rotate-key";
            match policy.certificate_not_after {
                None => print("\nThis node signs no policy: it has no keys/policy.key"),
                Some(end) if end - SOON.duration() <= SystemClock::new().now() => {
                    print(&format!("\nThe policy certificate ends soon; {rotate}"))
                }
                Some(_) => Ok(()),
            }
        }
        Policy::RaiseEpoch { yes } => {
            confirm("Raise the policy's epoch?", yes)?;
            let raised = api.raise_policy_epoch().await?;
            let sentence = format!(
                "the policy has version {}; devices take it again, whatever they saw before",
                raised.version
            );
            done(format, &sentence, &raised)
        }
        Policy::RotateKey { .. } => unreachable!("keys are made without a connection"),
    }
}

/// Makes a new policy key in the folder of a site on this machine.
pub(super) fn rotate_key(connection: &Connection, yes: bool, format: Format) -> anyhow::Result<()> {
    let folder = connection
        .site
        .as_deref()
        .map(SiteFolder::new)
        .context("the key is made in the site's folder; say --site DIR")?;
    let configuration = Configuration::read(&folder.configuration())?;
    confirm(
        "Make a new policy key in the place of the one that is there?",
        yes,
    )?;
    let keys = folder.keys();
    authority::create_policy_key(&keys, &configuration.name, &SystemClock::new(), &SystemRng)
        .context(
            "no new key was made; it needs keys/root.key, which may lie at its offline place",
        )?;
    let end = authority::PolicySigner::open(&keys)?
        .context("the new key is not there")?
        .not_after();
    let sentence = format!(
        "made a new policy key; its certificate ends {}\n\
         running nodes use it from now on; copy {} to the others that sign",
        to_the_second(end),
        keys.join("policy.key").display()
    );
    done(format, &sentence, &json!({ "certificate_not_after": end }))
}

//! `perennial exemption`.

use api::{ApiClient, ExemptionQuery, NewExemption};
use domain::compliance::ExemptionScope;

use super::{Done, all, resolve};
use crate::cli::Format;
use crate::cli::compliance::{Exempted, Exemption};
use crate::output::{Column, done, list};

pub(super) async fn run(api: &ApiClient, command: Exemption, format: Format) -> anyhow::Result<()> {
    match command {
        Exemption::Create {
            ci,
            rule,
            who,
            reason,
            until,
        } => {
            let new = NewExemption {
                item: ci,
                rule,
                scope: scope(api, who).await?,
                reason,
                until: until.map(|date| date.0),
            };
            let made = api.create_exemption(&new).await?;
            let sentence = format!("exemption {} of {}", made.number, new.scope);
            done(format, &sentence, &made)
        }
        Exemption::List {
            all: ended,
            device,
            ci,
        } => {
            let device = match device {
                Some(device) => Some(resolve(api, &device).await?),
                None => None,
            };
            let exemptions = all(async |after| {
                api.exemptions(&ExemptionQuery {
                    device,
                    item: ci.clone(),
                    ended: Some(ended),
                    after,
                    limit: Some(1000),
                })
                .await
            })
            .await?;
            let columns = [
                Column("NUMBER", "/number"),
                Column("CONFIGURATION ITEM", "/item"),
                Column("RULE", "/rule"),
                Column("COVERS", "/covers"),
                Column("NAME", "/host_name"),
                Column("UNTIL", "/until"),
                Column("ENDED", "/ended_at"),
                Column("BY", "/made_by"),
                Column("REASON", "/reason"),
            ];
            list(format, &exemptions, &columns)
        }
        Exemption::Remove { number } => {
            api.remove_exemption(number).await?;
            done(format, &format!("exemption {number} ended"), &Done {})
        }
    }
}

async fn scope(api: &ApiClient, who: Exempted) -> anyhow::Result<ExemptionScope> {
    match (who.collection, who.device) {
        (Some(name), _) => Ok(ExemptionScope::Collection(name)),
        (None, Some(device)) => Ok(ExemptionScope::Device(resolve(api, &device).await?)),
        (None, None) => anyhow::bail!("say --device or --collection"),
    }
}

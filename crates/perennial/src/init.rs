//! `perennial init`: makes a site. Each step is taken only when its result is not there yet, so
//! that the command can be repeated, also after it was interrupted.

use std::fs;
use std::sync::Arc;

use anyhow::Context;
use clock::{SystemClock, SystemRng};
use site::{add_first_token, create_keys, new_token_secret};
use store::Store;

use crate::cli::Init;
use crate::configuration::Configuration;
use crate::folder::SiteFolder;

pub async fn run(folder: &SiteFolder, arguments: &Init) -> anyhow::Result<()> {
    let clock = SystemClock::new();
    authority::make_folder(folder.path())?;

    let configuration = configuration(folder, arguments)?;
    let keys = folder.keys();
    if keys.exists() {
        println!("keys           kept  {}", keys.display());
    } else {
        let part = folder.path().join("keys.part");
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        authority::make_folder(&part)?;
        create_keys(&part, &configuration.name, &clock, &SystemRng)?;
        // Before the database is bound to them: it may be on another machine.
        authority::put_in_place(&part, &keys)?;
        println!("keys           made  {}", keys.display());
    }

    let _lock = match configuration.database.as_str() {
        "sqlite" => Some(
            folder
                .lock()
                .context("init needs the site for itself: stop `perennial serve` first")?,
        ),
        _ => None,
    };
    let location = configuration.location(folder)?;
    let store = Store::open(&location, "init", Arc::new(SystemRng)).await?;
    let authority = authority::Authority::open(&keys, None)?;
    store.bind_site(authority.pin()).await?;
    println!(
        "database       ready {}",
        if configuration.database == "sqlite" {
            folder.database().display().to_string()
        } else {
            "PostgreSQL".to_owned()
        }
    );

    let (token, word) = match folder.token()? {
        Some(token) => (token, "kept "),
        None => {
            let token = new_token_secret(&SystemRng);
            folder.write_token(&token)?;
            (token, "made ")
        }
    };
    add_first_token(&store, &clock, &token).await?;
    store.close().await;
    println!(
        "administrator  {word} {}",
        folder.path().join("administrator.token").display()
    );
    println!("pin            {}", authority.pin());
    println!(
        "next           perennial serve --site {}",
        folder.path().display()
    );
    Ok(())
}

fn configuration(folder: &SiteFolder, arguments: &Init) -> anyhow::Result<Configuration> {
    let file = folder.configuration();
    if file.exists() {
        println!("configuration  kept  {}", file.display());
        return Configuration::read(&file);
    }
    let hostnames = match &arguments.hostname[..] {
        [] => vec![
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        ],
        given => given.to_vec(),
    };
    let configuration = Configuration::new(
        arguments.name.clone(),
        hostnames,
        arguments.database.clone(),
    );
    configuration.check()?;
    // A database URL may hold a password.
    authority::write_secret(&file, configuration.to_toml()?.as_bytes())?;
    println!("configuration  made  {}", file.display());
    Ok(configuration)
}

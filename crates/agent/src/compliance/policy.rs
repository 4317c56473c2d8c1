//! The device's policy: a signed list and the signed bodies that it names, on disk as the site sent
//! them. Everything is verified when it comes, and again before it is used.
//!
//! ```text
//! policy/list.json          the list that is in force
//! policy/bodies/<hash>.json what it names
//! policy/seen.json          the newest version of each site that was ever seen, and the latest time
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use data_encoding::BASE64;
use domain::{Pin, Smsid, Timestamp};
use jiff::SignedDuration;
use protocol::{
    BodyHash, Command, CommandId, ItemBody, PayloadType, PolicyList, PolicyVersion, SignedDocument,
    signed_message,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use x509::{Certificate, PolicySignatureError};

use crate::files;
use crate::identity::Machine;
use crate::platform::Layout;
use crate::state::KnownTime;

/// Why a document is not this device's policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyProblem {
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Signature(#[from] PolicySignatureError),
    #[error("it is signed as something else")]
    Kind,
    #[error("it is for another device: {0}")]
    OtherDevice(Smsid),
    #[error("it expired {0}")]
    Expired(Timestamp),
    #[error("its version {given} is older than {newest}, which this device saw before")]
    Older {
        given: PolicyVersion,
        newest: PolicyVersion,
    },
    #[error("{0} was done already")]
    Done(CommandId),
    #[error("it ends before {0}, and this device forgot which of those it did")]
    Forgotten(Timestamp),
    #[error("its content is not what its name says")]
    Hash,
    #[error("it is not there")]
    Missing,
    #[error("{0}")]
    Disk(#[from] io::Error),
}

/// Whose policy is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub pin: Pin,
    pub device: Smsid,
}

/// Checks documents for one device, at one time.
pub struct Verifier {
    owner: Owner,
    /// The best knowledge of it.
    now: Timestamp,
    /// The last signer: most documents have the same, and a chain costs more than a signature.
    signer: Option<(Vec<String>, Certificate)>,
}

impl PolicyProblem {
    /// True when it was good at an earlier time.
    pub fn is_lateness(&self) -> bool {
        let ended = |error: &PolicySignatureError| matches!(error, PolicySignatureError::Ended(_));
        match self {
            Self::Expired(_) => true,
            Self::Signature(error) => ended(error),
            _ => false,
        }
    }
}

impl Verifier {
    pub fn new(owner: Owner, now: Timestamp) -> Self {
        Self {
            owner,
            now,
            signer: None,
        }
    }

    /// # Errors
    /// When it is no valid list of this device, or older than `newest`.
    pub fn list(
        &mut self,
        document: &SignedDocument,
        newest: PolicyVersion,
    ) -> Result<PolicyList, PolicyProblem> {
        let list: PolicyList = self.open(PayloadType::List, document)?;
        self.for_this_device(list.device, list.expires_at, self.now)?;
        if list.version < newest {
            return Err(PolicyProblem::Older {
                given: list.version,
                newest,
            });
        }
        Ok(list)
    }

    /// # Errors
    /// When it is not the body of that name.
    pub fn body(
        &mut self,
        document: &SignedDocument,
        hash: BodyHash,
    ) -> Result<ItemBody, PolicyProblem> {
        let payload = self.payload(PayloadType::Body, document)?;
        if x509::sha256(&[&payload]) != *hash.as_bytes() {
            return Err(PolicyProblem::Hash);
        }
        let body: ItemBody = parsed(&payload)?;
        if body.rules.len() != body.content.rules().len() {
            return Err(PolicyProblem::Unreadable(
                "its rules and their numbers do not match".to_owned(),
            ));
        }
        Ok(body)
    }

    /// `now`: what commands end by, which may be another time than that of certificates.
    ///
    /// # Errors
    /// When it is no valid command for this device.
    pub fn command(
        &mut self,
        document: &SignedDocument,
        now: Timestamp,
    ) -> Result<Command, PolicyProblem> {
        let command: Command = self.open(PayloadType::Command, document)?;
        self.for_this_device(command.device, command.expires_at, now)?;
        Ok(command)
    }

    fn for_this_device(
        &self,
        device: Smsid,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), PolicyProblem> {
        if device != self.owner.device {
            return Err(PolicyProblem::OtherDevice(device));
        }
        if now >= until {
            return Err(PolicyProblem::Expired(until));
        }
        Ok(())
    }

    fn open<T: DeserializeOwned>(
        &mut self,
        kind: PayloadType,
        document: &SignedDocument,
    ) -> Result<T, PolicyProblem> {
        parsed(&self.payload(kind, document)?)
    }

    /// The bytes of a document whose signature is the site's.
    fn payload(
        &mut self,
        kind: PayloadType,
        document: &SignedDocument,
    ) -> Result<Vec<u8>, PolicyProblem> {
        if document.payload_type != kind {
            return Err(PolicyProblem::Kind);
        }
        let payload = decoded(&document.payload)?;
        let signature = decoded(&document.signature)?;
        let known = self.signer.take();
        let (chain, signer) = match known.filter(|(chain, _)| *chain == document.chain) {
            Some(known) => known,
            None => {
                let chain: Vec<Vec<u8>> = document
                    .chain
                    .iter()
                    .map(|certificate| decoded(certificate))
                    .collect::<Result<_, _>>()?;
                let signer = x509::policy_certificate(self.owner.pin, &chain, self.now)?;
                (document.chain.clone(), signer)
            }
        };
        let message = signed_message(kind, &payload);
        x509::verify_policy_signature(&signer, &message, &signature)?;
        self.signer = Some((chain, signer));
        Ok(payload)
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, PolicyProblem> {
    BASE64
        .decode(text.as_bytes())
        .map_err(|error| PolicyProblem::Unreadable(error.to_string()))
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PolicyProblem> {
    serde_json::from_slice(bytes).map_err(|error| PolicyProblem::Unreadable(error.to_string()))
}

/// The policy on disk.
pub struct PolicyStore {
    folder: PathBuf,
}

/// What was seen of one site's lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// The newest version that the site signed for this computer. Nothing older is taken.
    pub newest: PolicyVersion,
    /// Of the list in force. It is older than the newest when one of the newest's bodies was refused.
    pub taken: PolicyVersion,
    /// The latest time that the site told, or signed: see [`Machine::policy_time`].
    pub time: Option<KnownTime>,
    /// When the newest list was signed.
    pub signed_at: Option<Timestamp>,
}

/// A time that is later than what is remembered, by less than this, need not be written.
const NOTED_EVERY: SignedDuration = SignedDuration::from_hours(1);

impl Machine {
    /// The time by which lists and the certificates that signed them end. Who answers a check-in tells any
    /// time it likes, and need not have the policy key: so it never goes back, but for a list of a higher
    /// epoch.
    pub fn policy_time(&self, pin: Pin) -> Timestamp {
        let seen = PolicyStore::new(&self.layout).seen(pin).unwrap_or_default();
        seen.time_of(self, self.best_time())
    }

    /// The time by which commands end, when somebody told `told`: some live for minutes, so a site that
    /// mended its clock must be believed. What the site signed cannot be told away.
    pub fn command_time(&self, pin: Pin, told: Timestamp) -> Timestamp {
        let seen = PolicyStore::new(&self.layout).seen(pin).unwrap_or_default();
        seen.signed_at.map_or(told, |signed_at| signed_at.max(told))
    }
}

impl Seen {
    /// The latest of what is remembered and `told`.
    pub fn time_of(&self, machine: &Machine, told: Timestamp) -> Timestamp {
        let known = self.time.as_ref().map(|known| machine.time_since(known));
        known.map_or(told, |known| known.max(told))
    }

    /// Remembers that it is `now`. What the machine's own clock tells from what is remembered already is
    /// written once in a while: a machine that is switched off has no such clock.
    pub fn note_time(&mut self, machine: &Machine, now: Timestamp) {
        if let Some(known) = &self.time
            && known.boot == machine.boot
            && now.duration_since(known.time) < NOTED_EVERY
            && now.duration_since(machine.time_since(known)) < SignedDuration::from_secs(60)
        {
            return;
        }
        self.time = Some(machine.know_time(now));
    }
}

/// No document on disk is larger: what the site may send, and a little for its envelope.
const MOST_BYTES: u64 = protocol::POLICY_LIMIT as u64 + 4096;

impl PolicyStore {
    pub fn new(layout: &Layout) -> Self {
        Self {
            folder: layout.policy(),
        }
    }

    /// What was seen of the site with this root.
    ///
    /// # Errors
    /// When that cannot be read: then nobody knows what is old.
    pub fn seen(&self, pin: Pin) -> io::Result<Seen> {
        Ok(self
            .all_seen()?
            .remove(&pin.to_string())
            .unwrap_or_default())
    }

    fn all_seen(&self) -> io::Result<BTreeMap<String, Seen>> {
        let file = self.folder.join("seen.json");
        match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            read => {
                let text = read.map_err(|error| files::named(&file, &error))?;
                serde_json::from_slice(&text).map_err(|error| files::named(&file, &error.into()))
            }
        }
    }

    pub fn note_seen(&self, pin: Pin, seen: &Seen) -> io::Result<()> {
        let mut all = self.all_seen()?;
        if all.insert(pin.to_string(), seen.clone()).as_ref() == Some(seen) {
            return Ok(());
        }
        files::make_folder(&self.folder, 0o700)?;
        let text = serde_json::to_vec_pretty(&all)?;
        files::replace(&self.folder.join("seen.json"), &text, 0o600)
    }

    /// The list in force.
    ///
    /// # Errors
    /// When there is none that is valid.
    pub fn list(&self, verifier: &mut Verifier) -> Result<PolicyList, PolicyProblem> {
        let newest = self.seen(verifier.owner.pin)?.taken;
        let document = read(&self.folder.join("list.json"))?;
        verifier.list(&document, newest)
    }

    /// A body of the list.
    ///
    /// # Errors
    /// When it is not here, or not valid any more.
    pub fn body(&self, verifier: &mut Verifier, hash: BodyHash) -> Result<ItemBody, PolicyProblem> {
        verifier.body(&read(&self.body_file(hash))?, hash)
    }

    /// Keeps a list that was verified, as the site signed it.
    pub fn keep_list(&self, document: &SignedDocument) -> io::Result<()> {
        files::make_folder(&self.folder, 0o700)?;
        let text = serde_json::to_vec(document)?;
        files::replace(&self.folder.join("list.json"), &text, 0o600)
    }

    /// Keeps a body that was verified, as the site signed it.
    pub fn keep_body(&self, hash: BodyHash, document: &SignedDocument) -> io::Result<()> {
        files::make_folder(&self.folder.join("bodies"), 0o700)?;
        let text = serde_json::to_vec(document)?;
        files::replace(&self.body_file(hash), &text, 0o600)
    }

    pub fn remove_body(&self, hash: BodyHash) -> io::Result<()> {
        files::remove(&self.body_file(hash))
    }

    /// Removes the bodies that `list` does not name.
    pub fn prune(&self, list: &PolicyList) -> io::Result<()> {
        for entry in fs::read_dir(self.folder.join("bodies"))
            .into_iter()
            .flatten()
        {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".json"));
            let hash = name.and_then(|name| name.parse::<BodyHash>().ok());
            let listed = hash.is_some_and(|hash| {
                let mut deployments = list.deployments.iter();
                deployments.any(|deployment| deployment.items.contains(&hash))
            });
            if !listed {
                files::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn body_file(&self, hash: BodyHash) -> PathBuf {
        self.folder.join("bodies").join(format!("{hash}.json"))
    }
}

fn read(file: &std::path::Path) -> Result<SignedDocument, PolicyProblem> {
    let named = |error: io::Error| PolicyProblem::Disk(files::named(file, &error));
    let handle = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(PolicyProblem::Missing);
        }
        opened => opened.map_err(named)?,
    };
    let mut text = Vec::new();
    handle
        .take(MOST_BYTES)
        .read_to_end(&mut text)
        .map_err(named)?;
    parsed(&text)
}

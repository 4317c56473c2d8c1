//! The audit log: one hash chain for each writer's lifetime, and signed checkpoints over the heads
//! of all chains. A chain shows that nothing inside it was changed; a checkpoint shows that no end
//! of a chain, and no whole chain, was taken away since.
//!
//! An event's hash covers the digest of its payload and not the payload, so that retention can erase
//! payloads and the chain still holds.

use aws_lc_rs::digest::{self, SHA256};
use data_encoding::HEXLOWER;
use domain::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{AuditEvent, Segment};
use crate::{Reads, Unavailable};

/// The last event of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The segment, in hexadecimal digits.
    pub segment: String,
    pub number: i64,
    /// In hexadecimal digits.
    pub hash: String,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditProof {
    pub segments: u64,
    pub events: u64,
    pub checkpoints: u64,
    /// Empty when everything holds.
    pub faults: Vec<ChainFault>,
}

/// Something in the audit log that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainFault {
    pub place: String,
    pub what: String,
}

/// The bytes that a checkpoint signs.
pub fn checkpoint_message(at: Timestamp, heads: &[Head]) -> Vec<u8> {
    serde_json::to_vec(&(at, heads)).expect("heads are plain data")
}

/// The hash before the first event of a segment.
pub(crate) fn genesis(segment: &Segment) -> [u8; 32] {
    hash(&[
        b"perennial audit segment 1",
        &segment.id,
        segment.node.as_bytes(),
        &segment.started_at.as_millisecond().to_be_bytes(),
    ])
}

/// The hash of an event, given the one before it.
pub(crate) fn event_hash(previous: &[u8; 32], event: &AuditEvent) -> [u8; 32] {
    hash(&[
        previous,
        &event.segment,
        &event.number.to_be_bytes(),
        &event.at.as_millisecond().to_be_bytes(),
        event.actor.as_bytes(),
        event.address.as_bytes(),
        event.action.as_bytes(),
        event.subject.as_bytes(),
        &event.payload_digest,
    ])
}

pub(crate) fn payload_digest(payload: &str) -> [u8; 32] {
    hash(&[payload.as_bytes()])
}

/// SHA-256 over parts, each preceded by its length, so that no two lists of parts look alike.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context
        .finish()
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

const CHUNK: u32 = 5_000;

pub(crate) async fn verify(
    reads: &dyn Reads,
    signature_holds: &(dyn Fn(&[u8], &[u8]) -> bool + Send + Sync),
) -> Result<AuditProof, Unavailable> {
    let mut proof = AuditProof {
        segments: 0,
        events: 0,
        checkpoints: 0,
        faults: Vec::new(),
    };
    let expected = checkpointed(reads, signature_holds, &mut proof).await?;

    let mut seen = std::collections::HashMap::new();
    for segment in reads.segments().await? {
        proof.segments += 1;
        let name = HEXLOWER.encode(&segment.id);
        let mut previous = genesis(&segment);
        let mut next = 1;
        loop {
            let events = reads.segment_events(&segment.id, next, CHUNK).await?;
            for event in &events {
                if let Some(what) = fault_of(event, next, &previous) {
                    proof.fault(&format!("{name}/{}", event.number), &what);
                }
                if let Some(hash) = expected.get(&(name.clone(), event.number)) {
                    seen.insert((name.clone(), event.number), *hash == event.hash);
                }
                previous = event.hash;
                next = event.number + 1;
                proof.events += 1;
            }
            if events.len() < CHUNK as usize {
                break;
            }
        }
    }
    for place in expected.keys() {
        match seen.get(place) {
            Some(true) => {}
            Some(false) => proof.fault(
                &format!("{}/{}", place.0, place.1),
                "differs from a signed checkpoint",
            ),
            None => proof.fault(
                &format!("{}/{}", place.0, place.1),
                "a signed checkpoint saw this event, and it is gone",
            ),
        }
    }
    Ok(proof)
}

/// The events that signed checkpoints saw, with their hashes.
async fn checkpointed(
    reads: &dyn Reads,
    signature_holds: &(dyn Fn(&[u8], &[u8]) -> bool + Send + Sync),
    proof: &mut AuditProof,
) -> Result<std::collections::HashMap<(String, i64), [u8; 32]>, Unavailable> {
    let mut expected = std::collections::HashMap::new();
    let mut after = 0;
    loop {
        let checkpoints = reads.checkpoints(after, CHUNK).await?;
        for checkpoint in &checkpoints {
            after = checkpoint.number;
            proof.checkpoints += 1;
            let place = format!("checkpoint {}", checkpoint.number);
            if !signature_holds(&checkpoint.message, &checkpoint.signature) {
                proof.fault(&place, "its signature does not hold");
                continue;
            }
            let Ok((_, heads)) =
                serde_json::from_slice::<(Timestamp, Vec<Head>)>(&checkpoint.message)
            else {
                proof.fault(&place, "it cannot be read");
                continue;
            };
            for head in heads {
                let hash = HEXLOWER.decode(head.hash.as_bytes()).ok();
                if let Some(hash) = hash.and_then(|hash| hash.try_into().ok()) {
                    expected.insert((head.segment, head.number), hash);
                }
            }
        }
        if checkpoints.len() < CHUNK as usize {
            return Ok(expected);
        }
    }
}

fn fault_of(event: &AuditEvent, expected_number: i64, previous: &[u8; 32]) -> Option<String> {
    if event.number != expected_number {
        return Some(format!("event {expected_number} is missing"));
    }
    if event_hash(previous, event) != event.hash {
        return Some("the event was changed".to_owned());
    }
    let digest = event
        .payload
        .as_ref()
        .map(|payload| payload_digest(&payload.to_string()));
    if digest.is_some_and(|digest| digest != event.payload_digest) {
        return Some("the event's details were changed".to_owned());
    }
    None
}

impl AuditProof {
    /// Faults beyond this number are counted in the last one's place.
    const MAX_FAULTS: usize = 100;

    pub fn holds(&self) -> bool {
        self.faults.is_empty()
    }

    fn fault(&mut self, place: &str, what: &str) {
        if self.faults.len() < Self::MAX_FAULTS {
            self.faults.push(ChainFault {
                place: place.to_owned(),
                what: what.to_owned(),
            });
        }
    }
}

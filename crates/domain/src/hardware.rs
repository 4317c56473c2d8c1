//! The hardware UUID that a device claims, and whether it can tell two computers apart at all.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A hardware UUID (SMBIOS system UUID, IOPlatformUUID). Only a claim: it identifies nothing, it
/// only lets an administrator look at two records that might be one computer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HardwareUuid(Uuid);

/// What was given is not a hardware UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a hardware UUID, such as 4C4C4544-0042-3510-8052-B3C04F4B4E32")]
pub struct InvalidHardwareUuid(String);

/// UUIDs that many computers have: left in firmware by its makers, or cloned with a disk.
const NOT_UNIQUE: &[Uuid] = &[
    // SMBIOS (DMTF DSP0134, section 7.2.1): not present, and not set.
    Uuid::from_u128(0xFFFFFFFF_FFFF_FFFF_FFFF_FFFFFFFFFFFF),
    Uuid::from_u128(0x00000000_0000_0000_0000_000000000000),
    // Placeholders of firmware: osquery, pull request 4374.
    Uuid::from_u128(0x03000200_0400_0500_0006_000700080009),
    Uuid::from_u128(0x03020100_0504_0706_0809_0A0B0C0D0E0F),
    Uuid::from_u128(0x10000000_0000_8000_0040_000000000000),
    // A placeholder of firmware: osquery, issue 8887.
    Uuid::from_u128(0xFEFEFEFE_FEFE_FEFE_FEFE_FEFEFEFEFEFE),
    // Found on two computers: FusionInventory for GLPI, issue 689.
    Uuid::from_u128(0x6AB5B300_538D_1014_9FB5_B0684D007B53),
    // The same with their fields in the other byte order, as SMBIOS before 2.6 has them (DSP0134,
    // section 7.2.1). FOG Project (class HostManager) excludes the first one too.
    Uuid::from_u128(0x00020003_0004_0005_0006_000700080009),
    Uuid::from_u128(0x00010203_0405_0607_0809_0A0B0C0D0E0F),
    // FOG Project, class HostManager.
    Uuid::from_u128(0x12345678_1234_5678_90AB_CDDEEFAABBCC),
    Uuid::from_u128(0xFFFFFF00_FFFF_FFFF_FFFF_FFFFFFFFFFFF),
    // On lists of smaller programs. They are digits in order and words: nobody's generator makes
    // them.
    Uuid::from_u128(0x12345678_1234_5678_1234_567812345678),
    Uuid::from_u128(0x01234567_89AB_CDEF_0123_456789ABCDEF),
    Uuid::from_u128(0xDEADBEEF_DEAD_BEEF_DEAD_BEEFDEADBEEF),
];

impl HardwareUuid {
    /// The UUID that a device reports, when two devices that report it may be one: it is well
    /// formed, and no value that is known to be shared.
    pub fn matchable(reported: &str) -> Option<Self> {
        let uuid: Self = reported.parse().ok()?;
        uuid.is_unique().then_some(uuid)
    }

    fn is_unique(self) -> bool {
        // One byte all along is nobody's: 11111111-1111-…, EEEEEEEE-EEEE-…
        let bytes = self.0.as_bytes();
        let one_byte = bytes.iter().all(|byte| *byte == bytes[0]);
        !one_byte && !NOT_UNIQUE.contains(&self.0)
    }
}

impl FromStr for HardwareUuid {
    type Err = InvalidHardwareUuid;

    /// Takes the form with hyphens, in either case.
    fn from_str(given: &str) -> Result<Self, InvalidHardwareUuid> {
        let invalid = || InvalidHardwareUuid(given.chars().take(40).collect());
        let text = given.trim();
        if text.len() != 36 {
            return Err(invalid());
        }
        Uuid::try_parse(text).map(Self).map_err(|_| invalid())
    }
}

impl fmt::Display for HardwareUuid {
    /// In upper case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}", self.0.as_hyphenated())
    }
}

impl fmt::Debug for HardwareUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HardwareUuid({self})")
    }
}

crate::serde_as_text!(HardwareUuid);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_tell_two_computers_apart() {
        for reported in [
            "4C4C4544-0042-3510-8052-B3C04F4B4E32",
            " 4c4c4544-0042-3510-8052-b3c04f4b4e32\n",
        ] {
            let uuid = HardwareUuid::matchable(reported).expect(reported);
            assert_eq!(uuid.to_string(), "4C4C4544-0042-3510-8052-B3C04F4B4E32");
        }
        for shared in [
            "",
            "Not Settable",
            "4C4C4544004235108052B3C04F4B4E32",
            "{4C4C4544-0042-3510-8052-B3C04F4B4E32}",
            "urn:uuid:4c4c4544-0042-3510-8052-b3c04f4b4e32",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "11111111-1111-1111-1111-111111111111",
            "03000200-0400-0500-0006-000700080009",
            "12345678-1234-5678-90ab-cddeefaabbcc",
            "FEFEFEFE-FEFE-FEFE-FEFE-FEFEFEFEFEFE",
        ] {
            assert_eq!(HardwareUuid::matchable(shared), None, "{shared}");
        }
    }
}

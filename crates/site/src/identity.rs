//! Two records of one computer: found by what they claim, and judged by a person. Nothing is merged
//! without one: a hardware UUID is a claim that everybody can make.

use domain::{Action, DeviceId};
use store::{AuditEvent, Certificate, CertificateFilter, Device, DeviceConflict, Kind};

use crate::{Administrator, Error, Page, Result, Site};

impl Site {
    /// Active devices that claim the same hardware.
    ///
    /// # Errors
    /// When the page's beginning is none.
    pub async fn device_conflicts(
        &self,
        by: &Administrator,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<DeviceConflict>> {
        by.require(Action::ReadDevices)?;
        let excluded = &self.0.settings.excluded_hardware_uuids;
        let mut page = self
            .0
            .store
            .device_conflicts(excluded, after, limit)
            .await?;
        for found in &mut page.items {
            for device in [&mut found.older, &mut found.newer] {
                device.last_seen = device.last_seen.max(self.0.seen.last(device.id));
            }
        }
        Ok(page)
    }

    /// Ends the record `from`, whose computer has the record `into` now, and revokes its
    /// certificates. Returns how many.
    ///
    /// # Errors
    /// When one of them is not there or has ended.
    pub async fn merge_devices(
        &self,
        by: &Administrator,
        from: DeviceId,
        into: DeviceId,
    ) -> Result<u64> {
        by.require(Action::MergeDevices)?;
        if from == into {
            return Err(Error::Invalid(
                "a device cannot be merged into itself".to_owned(),
            ));
        }
        // The one that stays takes the other's places.
        if self.0.store.named_device_aims(from).await? {
            by.require(Action::Deploy)?;
        }
        self.revoking(by, Kind::MergeDevices { from, into }).await
    }

    /// Remembers that two devices are two, whatever they claim.
    ///
    /// # Errors
    /// When one of them is not there.
    pub async fn keep_both_devices(
        &self,
        by: &Administrator,
        a: DeviceId,
        b: DeviceId,
    ) -> Result<()> {
        by.require(Action::MergeDevices)?;
        if a == b {
            return Err(Error::Invalid("that is one device".to_owned()));
        }
        self.commit(by.actor(), Kind::KeepBoth { a, b }).await?;
        Ok(())
    }

    /// The records that `device` replaced, also indirectly.
    ///
    /// # Errors
    /// When there is no such device, or the page's beginning is none.
    pub async fn earlier_records(
        &self,
        by: &Administrator,
        device: DeviceId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Device>> {
        self.device(by, device).await?;
        let after = after
            .map(str::parse)
            .transpose()
            .map_err(|_| Error::Invalid("that is not where a page begins".to_owned()))?;
        let mut page = self.0.store.earlier_records(device, after, limit).await?;
        page.items
            .iter_mut()
            .for_each(|device| self.add_last_seen(device));
        Ok(page)
    }

    /// A device's certificates, whole, for an export of what is known of it.
    ///
    /// # Errors
    /// When there is no such device, or the page's beginning is none.
    pub async fn export_certificates(
        &self,
        by: &Administrator,
        device: DeviceId,
        after: Option<String>,
        limit: u32,
    ) -> Result<Page<Certificate>> {
        by.require(Action::ReadAudit)?;
        self.device(by, device).await?;
        let filter = CertificateFilter {
            device: Some(device),
            after,
            limit,
            ..CertificateFilter::default()
        };
        Ok(self.0.store.certificates(&filter).await?)
    }

    /// What the audit log has about a device and its certificates, newest first.
    ///
    /// # Errors
    /// When there is no such device, or the page's beginning is none.
    pub async fn export_events(
        &self,
        by: &Administrator,
        device: DeviceId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<AuditEvent>> {
        by.require(Action::ReadAudit)?;
        self.device(by, device).await?;
        Ok(self.0.store.device_events(device, after, limit).await?)
    }
}

//! What administrators do with devices.

use domain::{Action, DeviceId, DeviceTransition, RevocationReason};
use store::{Applied, Device, DeviceFilter, Kind};

use crate::{Administrator, Error, Page, Result, Site};

impl Site {
    /// # Errors
    /// When the role may not, or the page's beginning is none.
    pub async fn devices(&self, by: &Administrator, filter: &DeviceFilter) -> Result<Page<Device>> {
        by.require(Action::ReadDevices)?;
        if filter
            .name
            .as_deref()
            .is_some_and(|name| name.contains(char::is_control))
        {
            return Err(Error::Invalid(
                "a host name has no control characters".to_owned(),
            ));
        }
        let mut page = self.0.store.devices(filter).await?;
        page.items
            .iter_mut()
            .for_each(|device| self.add_last_seen(device));
        Ok(page)
    }

    /// # Errors
    /// When there is no such device.
    pub async fn device(&self, by: &Administrator, device: DeviceId) -> Result<Device> {
        by.require(Action::ReadDevices)?;
        let found = self.0.store.device(device).await?;
        let mut found =
            found.ok_or_else(|| Error::NotFound(format!("there is no device {device}")))?;
        self.add_last_seen(&mut found);
        Ok(found)
    }

    /// Refuses the device from now on, until it is unblocked.
    ///
    /// # Errors
    /// When there is no such device, or it is retired.
    pub async fn block_device(&self, by: &Administrator, device: DeviceId) -> Result<()> {
        self.transit(by, device, DeviceTransition::Block).await
    }

    /// # Errors
    /// When there is no such device, or it is retired.
    pub async fn unblock_device(&self, by: &Administrator, device: DeviceId) -> Result<()> {
        self.transit(by, device, DeviceTransition::Unblock).await
    }

    /// Retires the device and revokes its certificates everywhere. Returns how many.
    ///
    /// # Errors
    /// When there is no such device.
    pub async fn revoke_device(
        &self,
        by: &Administrator,
        device: DeviceId,
        reason: RevocationReason,
    ) -> Result<u64> {
        by.require(Action::RevokeCertificates)?;
        let transition = DeviceTransition::Retire;
        let kind = Kind::Transition {
            device,
            transition,
            revoke: Some(reason),
        };
        self.revoking(by, kind).await
    }

    /// Revokes the certificates of the device, and of the records that it replaced, and ends them.
    /// Their history goes after the retention time. Returns how many were revoked.
    ///
    /// # Errors
    /// When there is no such device.
    pub async fn delete_device(&self, by: &Administrator, device: DeviceId) -> Result<u64> {
        by.require(Action::DeleteDevices)?;
        self.revoking(by, Kind::DeleteDevice { device }).await
    }

    pub(crate) async fn revoking(&self, by: &Administrator, kind: Kind) -> Result<u64> {
        let applied = self.commit(by.actor(), kind).await?;
        let revoked = match applied {
            Applied::Revoked { certificates } => certificates,
            _ => 0,
        };
        if revoked > 0 {
            self.0.revoked.notify_one();
        }
        Ok(revoked)
    }

    async fn transit(
        &self,
        by: &Administrator,
        device: DeviceId,
        transition: DeviceTransition,
    ) -> Result<()> {
        by.require(Action::BlockDevices)?;
        self.commit(
            by.actor(),
            Kind::Transition {
                device,
                transition,
                revoke: None,
            },
        )
        .await?;
        Ok(())
    }

    pub(crate) fn add_last_seen(&self, device: &mut Device) {
        device.last_seen = device.last_seen.max(self.0.seen.last(device.id));
    }
}

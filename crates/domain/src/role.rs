//! Who may do what: the roles of administrators and the actions they cover.

use crate::state::words;

words! {
    /// A role of an administrator (the incumbent's names where it has them).
    Role {
        FullAdministrator = "full-administrator",
        ComplianceSettingsManager = "compliance-settings-manager",
        EnrollmentManager = "enrollment-manager",
        HelpDesk = "help-desk",
        ReadOnlyAnalyst = "read-only-analyst",
    }
}

words! {
    /// What an administrator may do, one word for each kind of request.
    Action {
        ReadAccounts = "read-accounts",
        ManageAccounts = "manage-accounts",
        ReadDevices = "read-devices",
        BlockDevices = "block-devices",
        DeleteDevices = "delete-devices",
        ReadCertificates = "read-certificates",
        RevokeCertificates = "revoke-certificates",
        ReadAudit = "read-audit",
        ReadAlerts = "read-alerts",
        CloseAlerts = "close-alerts",
        /// One renewal of an expired certificate, by the device that still has its key.
        AllowRenewal = "allow-renewal",
        /// To believe the site's clock after it stepped.
        AcceptClock = "accept-clock",
        ReadCollections = "read-collections",
        ManageCollections = "manage-collections",
        MoveRenewalWindows = "move-renewal-windows",
        MergeDevices = "merge-devices",
        ReadCompliance = "read-compliance",
        /// Configuration items, baselines and exemptions.
        ManageCompliance = "manage-compliance",
        Deploy = "deploy",
        /// To tell a device to renew, to evaluate or to check in now.
        RunCommands = "run-commands",
        /// To run a script of a configuration item on a device, once.
        TestScripts = "test-scripts",
        UninstallClients = "uninstall-clients",
        ManagePolicy = "manage-policy",
    }
}

impl Role {
    /// The whole table of permissions.
    pub fn may(self, action: Action) -> bool {
        use Action::*;
        match self {
            Role::FullAdministrator => true,
            Role::EnrollmentManager => matches!(
                action,
                ReadAccounts
                    | ManageAccounts
                    | ReadDevices
                    | BlockDevices
                    | DeleteDevices
                    | ReadCertificates
                    | RevokeCertificates
                    | ReadAlerts
                    | CloseAlerts
                    | AllowRenewal
                    | ReadCollections
                    | ManageCollections
                    | MoveRenewalWindows
                    | MergeDevices
                    | ReadCompliance
                    | RunCommands
            ),
            Role::HelpDesk => {
                matches!(
                    action,
                    ReadDevices
                        | ReadCertificates
                        | ReadCollections
                        | ReadAlerts
                        | AllowRenewal
                        | ReadCompliance
                        | RunCommands
                )
            }
            Role::ComplianceSettingsManager => {
                matches!(
                    action,
                    ReadDevices
                        | ReadCertificates
                        | ReadAlerts
                        | ReadCollections
                        | ManageCollections
                        | ReadCompliance
                        | ManageCompliance
                        | Deploy
                        | RunCommands
                        | TestScripts
                )
            }
            Role::ReadOnlyAnalyst => {
                matches!(
                    action,
                    ReadAccounts
                        | ReadDevices
                        | ReadCertificates
                        | ReadAudit
                        | ReadAlerts
                        | ReadCollections
                        | ReadCompliance
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_analyst_only_reads() {
        for action in Action::ALL {
            if Role::ReadOnlyAnalyst.may(*action) {
                assert!(action.word().starts_with("read-"), "{action}");
            }
        }
    }
}

//! Local accounts: the users who may enroll.

use data_encoding::HEXLOWER;
use directory::Password;
use domain::{Action, Timestamp, UserName};
use serde::{Deserialize, Serialize};
use store::{Kind, NewAccount};
use zeroize::Zeroizing;

use crate::{Administrator, Error, Page, Result, Site};

/// An account as administrators see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccountView {
    pub name: String,
    pub common_name: String,
    pub created_at: Timestamp,
}

/// A password for an account, as an administrator set it.
pub struct NewPassword(pub Zeroizing<String>);

/// Shorter passwords are refused when they are set.
const SHORTEST_PASSWORD: usize = 8;

impl Site {
    /// # Errors
    /// When the name is taken or is none, or the password is too short.
    pub async fn add_account(
        &self,
        by: &Administrator,
        name: &str,
        common_name: Option<&str>,
        password: NewPassword,
    ) -> Result<AccountView> {
        by.require(Action::ManageAccounts)?;
        let name = local_name(name)?;
        let common_name = match common_name.map(str::trim) {
            None | Some("") => name.clone(),
            Some(given) if given.chars().count() > 64 || given.chars().any(char::is_control) => {
                return Err(Error::Invalid(
                    "a common name has at most 64 characters, none of them a control character"
                        .to_owned(),
                ));
            }
            Some(given) => given.to_owned(),
        };
        let password_hash = self.hash(password).await?;
        // The id outlives the name: a name that is given again is another person.
        let mut id = [0; 16];
        self.0.rng.fill(&mut id);
        let account = NewAccount {
            id: format!("local:{}", HEXLOWER.encode(&id)),
            name: name.clone(),
            common_name: common_name.clone(),
            password_hash,
        };
        self.commit(by.actor(), Kind::AddAccount(account)).await?;
        Ok(AccountView {
            name,
            common_name,
            created_at: self.now(),
        })
    }

    /// # Errors
    /// When there is no such account, or the password is too short.
    pub async fn set_password(
        &self,
        by: &Administrator,
        name: &str,
        password: NewPassword,
    ) -> Result<()> {
        by.require(Action::ManageAccounts)?;
        let name = local_name(name)?;
        let password_hash = self.hash(password).await?;
        self.commit(
            by.actor(),
            Kind::SetPassword {
                name,
                password_hash,
            },
        )
        .await?;
        Ok(())
    }

    /// Removes an account: its user can no longer enroll. Devices and certificates stay.
    ///
    /// # Errors
    /// When there is no such account.
    pub async fn remove_account(&self, by: &Administrator, name: &str) -> Result<()> {
        by.require(Action::ManageAccounts)?;
        self.commit(
            by.actor(),
            Kind::RemoveAccount {
                name: local_name(name)?,
            },
        )
        .await?;
        Ok(())
    }

    /// # Errors
    /// When the role may not.
    pub async fn accounts(
        &self,
        by: &Administrator,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<AccountView>> {
        by.require(Action::ReadAccounts)?;
        if after.is_some_and(|after| after.contains(char::is_control)) {
            return Err(Error::Invalid("that is not where a page begins".to_owned()));
        }
        let page = self.0.store.accounts(after, limit).await?;
        let items = page
            .items
            .into_iter()
            .map(|account| AccountView {
                name: account.name,
                common_name: account.common_name,
                created_at: account.created_at,
            })
            .collect();
        Ok(Page {
            items,
            next: page.next,
        })
    }

    async fn hash(&self, password: NewPassword) -> Result<String> {
        if password.0.chars().count() < SHORTEST_PASSWORD {
            return Err(Error::Invalid(format!(
                "the password needs at least {SHORTEST_PASSWORD} characters"
            )));
        }
        let password =
            Password::new(password.0).map_err(|rejected| Error::Invalid(rejected.to_string()))?;
        Ok(self.0.passwords.hash(password).await.as_str().to_owned())
    }
}

fn local_name(given: &str) -> Result<String> {
    let name: UserName = given
        .parse()
        .map_err(|error| Error::Invalid(format!("{error}")))?;
    match name.domain() {
        None => Ok(name.name().to_owned()),
        Some(_) => Err(Error::Invalid(
            "a local account's name has no domain".to_owned(),
        )),
    }
}

//! `renew`: a silent renewal now, or with a user's name and password: the Renew Certificate Wizard
//! on a terminal.

use std::io::{BufRead, IsTerminal, Read, Write};

use domain::wizard::{Context, Effect, Event, Failed, Page, RenewalFailure, Wizard};
use domain::{ReminderStage, Timestamp};
use zeroize::Zeroizing;

use crate::cli::{Output, Renew};
use crate::failure::Failure;
use crate::identity::{Identity, Machine};
use crate::reminder::{self, Notice};
use crate::renewal::{self, Renewed};
use crate::site::{SiteClient, SiteRecord};
use crate::tools::enroll;
use crate::tools::status::{Status, to_the_second};

pub async fn run(machine: &Machine, arguments: &Renew) -> Result<(), Failure> {
    crate::log::start(&machine.layout, false);
    match &arguments.user {
        None => {
            renewal::require_identity(machine)?;
            silently(machine, arguments.output).await
        }
        Some(user) => {
            let identity = machine.enrolled()?;
            let mut terminal = Terminal::new(machine, identity, user, arguments.password_stdin);
            terminal.walk().await?;
            machine.wake_daemon();
            if arguments.output.json {
                super::print_json(&Status::of(machine)?)?;
            }
            Ok(())
        }
    }
}

async fn silently(machine: &Machine, output: Output) -> Result<(), Failure> {
    let _lock = machine.lock().await?;
    renewal::resume(machine).await?;
    let identity = renewal::renew(machine).await?;
    machine.wake_daemon();
    if output.json {
        return super::print_json(&Status::of(machine)?);
    }
    println!("Renewed");
    println!("Subject  {}", identity.certificate.subject());
    println!("Expires  {}", identity.certificate.not_after());
    Ok(())
}

/// The wizard's pages as lines. What people read goes to standard error, so that `--json` stays
/// clean.
struct Terminal<'a> {
    machine: &'a Machine,
    before: Identity,
    site: SiteRecord,
    wizard: Wizard,
    password: Option<Zeroizing<String>>,
    /// The password comes from standard input, and nobody answers questions.
    unattended: bool,
    failure: Option<Failure>,
}

impl<'a> Terminal<'a> {
    fn new(machine: &'a Machine, before: Identity, user: &str, password_stdin: bool) -> Self {
        let state = machine.state();
        let not_after = before.certificate.not_after();
        let stage = ReminderStage::at(machine.now(), not_after, &machine.schedule());
        let wizard = Wizard::open(Context {
            stage,
            not_after,
            user: user.to_owned(),
            server: before.site.server.to_string(),
            put_off: state.put_off,
            site_reachable: true,
        });
        let site = SiteRecord {
            user: user.to_owned(),
            ..before.site.clone()
        };
        Self {
            machine,
            before,
            site,
            wizard,
            password: None,
            unattended: password_stdin,
            failure: None,
        }
    }

    async fn walk(&mut self) -> Result<(), Failure> {
        loop {
            let event = match self.wizard.page().clone() {
                Page::Notice => self.notice().await?,
                Page::Credentials => self.credentials()?,
                Page::Offline => self.offline().await?,
                Page::Failed(failed) => self.failed(&failed)?,
                Page::Done {
                    not_after,
                    meanwhile,
                } => {
                    done(not_after, meanwhile);
                    self.tell_of_new_record()?;
                    Event::Continue
                }
                // The agent is this program: it neither waits for itself nor goes away.
                Page::Progress | Page::Waiting(_) => Event::Close,
                Page::Closed { renewed: true } => return Ok(()),
                Page::Closed { renewed: false } => return self.put_off().await,
            };
            if self.wizard.take(event) == Some(Effect::AskAgent) {
                eprintln!("Renewing …");
                let answer = self.ask_agent().await;
                self.wizard.take(answer);
            }
        }
    }

    async fn notice(&mut self) -> Result<Event, Failure> {
        let state = self.machine.state();
        let stage = self.wizard.context().stage;
        let notice = Notice::new(self.machine, &self.before, &state, stage);
        eprintln!("{}", notice.sentence());
        if state.put_off > 0 {
            eprintln!("It was put off {} times.", state.put_off);
        }
        self.probe().await;
        if self.unattended {
            return Ok(Event::Continue);
        }
        self.choose(
            "Enter: continue, l: remind me later",
            &[("", Event::Continue), ("l", Event::Later)],
        )
    }

    fn credentials(&mut self) -> Result<Event, Failure> {
        eprintln!("User name    {}", self.site.user);
        eprintln!("Server name  {}", self.site.server);
        let password = enroll::password(&self.site.user, self.unattended)?;
        if password.is_empty() {
            if self.unattended {
                return Err(Failure::EmptyPassword);
            }
            eprintln!("The password is empty.");
            return Ok(Event::Back);
        }
        self.password = Some(password);
        Ok(Event::Submit)
    }

    async fn offline(&mut self) -> Result<Event, Failure> {
        eprintln!(
            "The site at {} cannot be reached. Connect to your company's network; this computer \
             tries again by itself.",
            self.site.server
        );
        if self.unattended {
            return Err(self.failure.take().unwrap_or_else(|| {
                Failure::Unreachable(format!("cannot reach {}", self.site.server))
            }));
        }
        let event = self.choose(
            "Enter: try again, l: remind me later",
            &[("", Event::TryAgain), ("l", Event::Later)],
        )?;
        if event == Event::TryAgain {
            self.probe().await;
        }
        Ok(event)
    }

    fn failed(&mut self, failed: &Failed) -> Result<Event, Failure> {
        eprintln!("{}", in_words(failed.failure));
        eprintln!("  {}", failed.detail);
        if self.unattended {
            return Err(self
                .failure
                .take()
                .unwrap_or_else(|| Failure::other(failed.detail.clone())));
        }
        self.choose(
            "Enter: try again, l: remind me later",
            &[("", Event::TryAgain), ("l", Event::Later)],
        )
    }

    /// Looks whether the site is there, before anybody types a password in vain.
    async fn probe(&mut self) {
        let asked = match SiteClient::new(&self.site, None, self.machine) {
            Ok(client) => client.authorities().await.map(drop),
            Err(failure) => Err(failure),
        };
        let there = |failure: &Failure| {
            !matches!(
                failure,
                Failure::Unreachable(_) | Failure::NotTrusted { .. }
            )
        };
        let reachable = asked.as_ref().err().is_none_or(there);
        self.failure = asked.err();
        self.wizard.take(Event::SiteReachable(reachable));
    }

    async fn ask_agent(&mut self) -> Event {
        // Handed over once.
        let password = self.password.take().unwrap_or_default();
        match self.renew(&password).await {
            Ok(event) => event,
            Err(failure) => {
                let refused = Event::Refused(Failed {
                    failure: failure.for_the_wizard(),
                    detail: failure.to_string(),
                });
                self.failure = Some(failure);
                refused
            }
        }
    }

    async fn renew(&self, password: &Zeroizing<String>) -> Result<Event, Failure> {
        let (machine, user) = (self.machine, &self.site.user);
        let _lock = machine.lock().await?;
        let renewed =
            renewal::renew_with_password(machine, &self.before, user, password, &|_| ()).await?;
        Ok(match renewed {
            Renewed::Now(identity) => Event::Renewed {
                not_after: identity.certificate.not_after(),
            },
            Renewed::Meanwhile(identity) => Event::RenewedMeanwhile {
                not_after: identity.certificate.not_after(),
            },
        })
    }

    /// Without a proof of its key the computer is a new one to the site.
    fn tell_of_new_record(&self) -> Result<(), Failure> {
        let now = self.machine.enrolled()?.certificate.device();
        if let Some(device) = now.filter(|_| now != self.before.certificate.device()) {
            eprintln!(
                "The site did not take the old certificate as a proof: this computer has a new \
                 record, SMSID {}",
                device.smsid()
            );
        }
        Ok(())
    }

    async fn put_off(&self) -> Result<(), Failure> {
        let put_off = reminder::put_off(self.machine, reminder::Whose::Root).await?;
        match put_off.until {
            Some(at) => {
                eprintln!("Put off. You will be reminded on {}", to_the_second(at));
            }
            None => eprintln!("Put off. This computer goes on trying by itself."),
        }
        Ok(())
    }

    fn choose(&self, question: &str, choices: &[(&str, Event)]) -> Result<Event, Failure> {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::other(
                "nobody can answer here; give the password with --password-stdin",
            ));
        }
        loop {
            eprint!("{question} ");
            std::io::stderr().flush()?;
            let mut line = String::new();
            if std::io::stdin().lock().take(100).read_line(&mut line)? == 0 {
                return Ok(Event::Close);
            }
            let typed = line.trim().to_lowercase();
            if let Some((_, event)) = choices.iter().find(|(word, _)| *word == typed) {
                return Ok(event.clone());
            }
        }
    }
}

fn done(not_after: Timestamp, meanwhile: bool) {
    if meanwhile {
        eprintln!("The certificate was renewed meanwhile; nothing is left to do.");
    } else {
        eprintln!("Renewed.");
    }
    eprintln!(
        "The new certificate is valid until {}",
        to_the_second(not_after)
    );
}

/// A failure in words that a person can act on.
fn in_words(failure: RenewalFailure) -> &'static str {
    match failure {
        RenewalFailure::WrongPassword => {
            "The user name or the password is wrong. The certificate in use is as it was."
        }
        RenewalFailure::TooMany => "Too many attempts just now. Wait a while and try again.",
        RenewalFailure::Busy => "The agent is still at work. Try again in a moment.",
        RenewalFailure::NotAllowed => {
            "The site does not allow it. Ask your help desk, and give them this line:"
        }
        RenewalFailure::SiteUnreachable => {
            "The site cannot be reached. This computer tries again by itself."
        }
        RenewalFailure::NotTrusted => {
            "This is not the site that this computer belongs to; nothing was sent to it."
        }
        RenewalFailure::Other => "That did not work. The certificate in use is as it was.",
    }
}

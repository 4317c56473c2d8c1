//! Every word that people read in the windows, in English and in German: sentences, plurals, dates.
//! A translation to another language is one more [`Language`] and a column in this file.

use domain::wizard::RenewalFailure;
use domain::{
    ComplianceState, ReminderStage, RenewalKey, RenewalMode, RenewalSetting, Timestamp, Unused,
};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Zoned};
use protocol::{LocalTrouble, TroubleOf};

/// Between what is read in one breath.
const NO_BREAK: char = '\u{a0}';

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    German,
}

/// How a session writes and where it is.
#[derive(Debug, Clone)]
pub struct Words {
    language: Language,
    zone: TimeZone,
    /// As in the United States: `2:30 PM`, and the month before the day.
    american: bool,
    company: Option<String>,
}

impl Language {
    /// Of a locale or a language tag such as `de`, `de-AT` or `de_DE.UTF-8`.
    fn of(tag: &str) -> Self {
        match tag.split(['-', '_', '.', '@']).next() {
            Some(language) if language.eq_ignore_ascii_case("de") => Self::German,
            _ => Self::English,
        }
    }
}

impl Words {
    pub fn new(language: Language, zone: TimeZone) -> Self {
        Self {
            language,
            zone,
            american: false,
            company: None,
        }
    }

    /// `configured` is the language of managed preferences; `locale` that of the session.
    pub fn choose(configured: Option<&str>, locale: &str, zone: TimeZone) -> Self {
        let words = Self::new(Language::of(configured.unwrap_or(locale)), zone);
        Self {
            american: locale.starts_with("en_US") && words.language == Language::English,
            ..words
        }
    }

    #[must_use]
    pub fn of_company(self, company: Option<String>) -> Self {
        Self { company, ..self }
    }

    pub fn language(&self) -> Language {
        self.language
    }

    fn pick<'a>(&self, english: &'a str, german: &'a str) -> &'a str {
        match self.language {
            Language::English => english,
            Language::German => german,
        }
    }

    fn say(&self, english: String, german: String) -> String {
        match self.language {
            Language::English => english,
            Language::German => german,
        }
    }
}

/// The locale of the session, by the order of POSIX.
pub fn session_locale() -> String {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    set("LC_ALL")
        .or_else(|| set("LC_MESSAGES"))
        .or_else(|| set("LANG"))
        .unwrap_or_default()
}

macro_rules! table {
    ($($name:ident: $english:literal, $german:literal;)*) => {
        /// What has no parts.
        impl Words {
            $(pub fn $name(&self) -> &'static str { self.pick($english, $german) })*
        }
    };
}

table! {
    // Buttons.
    continue_: "Continue", "Weiter";
    back: "Back", "Zurück";
    later: "Remind me later", "Später erinnern";
    renew: "Renew", "Erneuern";
    renew_certificate: "Renew…", "Erneuern …";
    enroll: "Enroll", "Registrieren";
    enroll_computer: "Enroll…", "Registrieren …";
    try_again: "Try again", "Erneut versuchen";
    close: "Close", "Schließen";
    copy: "Copy", "Kopieren";
    copied: "Copied", "Kopiert";
    confirm: "It matches", "Er stimmt überein";
    check_in_now: "Check in now", "Beim Server melden";
    save_diagnostics: "Save diagnostics", "Diagnose speichern";

    // Fields.
    user_name: "User name", "Benutzername";
    password: "Password", "Kennwort";
    server_name: "Server name", "Servername";
    password_is_missing: "Enter your password.", "Geben Sie Ihr Kennwort ein.";
    user_is_missing: "Enter your user name.", "Geben Sie Ihren Benutzernamen ein.";
    server_is_missing: "Enter the name of the server.", "Geben Sie den Namen des Servers ein.";
    used_once: "It is used once to verify that it is you, and never stored.",
        "Damit wird einmalig geprüft, dass Sie es sind; es wird nie gespeichert.";
    server_is_fixed: "Set by your administrator.", "Von Ihrer Administration festgelegt.";

    // The Renew Certificate Wizard.
    renew_window: "Renew Certificate", "Zertifikat erneuern";
    renew_title: "Renew your certificate", "Erneuern Sie Ihr Zertifikat";
    expired_title: "Your certificate has expired", "Ihr Zertifikat ist abgelaufen";
    what_it_takes: "Renewing takes about a minute. You need your password, and you can keep working.",
        "Das Erneuern dauert etwa eine Minute. Sie brauchen Ihr Kennwort und können weiterarbeiten.";
    sign_in_title: "Confirm that it is you", "Bestätigen Sie, dass Sie es sind";
    sign_in_subtitle: "With the name and password that you use at work.",
        "Mit dem Namen und Kennwort, die Sie bei der Arbeit verwenden.";
    progress_title: "Renewing the certificate", "Das Zertifikat wird erneuert";
    progress_subtitle: "This usually takes a few seconds.", "Das dauert meist wenige Sekunden.";
    done_title: "The certificate is renewed", "Das Zertifikat ist erneuert";
    done_subtitle: "There is nothing else to do.", "Sie müssen nichts weiter tun.";
    meanwhile_title: "Already renewed", "Schon erneuert";
    meanwhile: "The certificate was renewed while this window was open. There is nothing left to do.",
        "Das Zertifikat wurde erneuert, während dieses Fenster offen war. Es ist nichts mehr zu tun.";
    closes_by_itself: "This page closes automatically.", "Diese Seite schließt sich automatisch.";
    failed_title: "That did not work", "Das hat nicht geklappt";
    as_before: "Your current certificate is unchanged.",
        "Ihr bisheriges Zertifikat ist unverändert.";
    nothing_changed: "Nothing on this computer has changed.", "An diesem Computer hat sich nichts geändert.";
    offline_title: "The server cannot be reached", "Der Server ist nicht erreichbar";
    offline_subtitle: "This continues automatically once the server can be reached.",
        "Es geht automatisch weiter, sobald der Server erreichbar ist.";
    offline: "Connect to your company's network or VPN. You do not need your password yet: it would not help now. This computer keeps trying automatically.",
        "Verbinden Sie sich mit dem Netz oder VPN Ihrer Firma. Ihr Kennwort brauchen Sie noch nicht: Es würde jetzt nicht helfen. Dieser Computer versucht es automatisch weiter.";
    waiting_title: "Waiting for the agent", "Warten auf den Agenten";
    waiting_subtitle: "This continues as soon as it responds.", "Es geht weiter, sobald er antwortet.";
    waiting: "The service that looks after this computer is not responding. It may be restarting; this window continues automatically.",
        "Der Dienst, der diesen Computer betreut, antwortet gerade nicht. Vielleicht startet er neu; dieses Fenster macht automatisch weiter.";
    waiting_long: "If this takes long, contact your help desk.",
        "Wenn das länger dauert, wenden Sie sich an Ihren Helpdesk.";
    details: "Details for the help desk", "Details für den Helpdesk";
    expires: "Expires", "Läuft ab";
    expired: "Expired", "Abgelaufen";
    valid_until: "Valid until", "Gültig bis";
    bar_name: "Life of the certificate", "Laufzeit des Zertifikats";

    // Steps of the agent.
    step_waiting: "Wait for other work", "Auf andere Arbeit warten";
    step_asking: "Ask the server for a new certificate", "Neues Zertifikat beim Server anfordern";
    step_taking: "Start using it", "Zertifikat in Gebrauch nehmen";
    working: "Progress", "Fortschritt";
    step_is_done: "done", "fertig";
    step_is_running: "under way", "läuft";
    step_is_ahead: "to come", "steht noch aus";

    // Enrollment.
    enroll_window: "Enroll This Computer", "Diesen Computer registrieren";
    welcome_title: "Enroll this computer", "Registrieren Sie diesen Computer";
    welcome_subtitle: "It takes about a minute.", "Das dauert etwa eine Minute.";
    welcome_1: "Give the name and password that you use at work",
        "Geben Sie Name und Kennwort an, die Sie bei der Arbeit verwenden";
    welcome_2: "The server certifies this computer", "Der Server zertifiziert diesen Computer";
    welcome_3: "From then on the certificate renews automatically",
        "Danach erneuert sich das Zertifikat automatisch";
    no_server: "No server is set for this computer. An administrator can enroll it on a terminal:",
        "Für diesen Computer ist kein Server festgelegt. Eine Administratorin oder ein Administrator kann ihn auf einem Terminal registrieren:";
    enrolling_title: "Enrolling this computer", "Der Computer wird registriert";
    enrolled_title: "This computer is enrolled", "Dieser Computer ist registriert";
    enrolled_subtitle: "From now on the certificate renews automatically.",
        "Von nun an erneuert sich das Zertifikat automatisch.";
    trust_title: "Is this the right server?", "Ist das der richtige Server?";
    trust_subtitle: "It is not known to this computer yet.",
        "Dieser Computer kennt ihn noch nicht.";
    trust: "Compare this fingerprint with the one that the server's administrator gave you. Only when both are the same is it the right server. Nothing was sent to it, not even your password.",
        "Vergleichen Sie diesen Fingerabdruck mit dem, den Sie von der Administration des Servers haben. Nur wenn beide gleich sind, ist es der richtige Server. Es wurde nichts an ihn gesendet, auch Ihr Kennwort nicht.";
    trust_by_administrator: "An administrator of this computer has to confirm the server before anybody can enroll. Give them this fingerprint. Nothing was sent to the server, not even your password.",
        "Bevor jemand registrieren kann, muss die Administration dieses Computers den Server bestätigen. Geben Sie ihr diesen Fingerabdruck. Es wurde nichts an den Server gesendet, auch Ihr Kennwort nicht.";
    fingerprint: "Fingerprint", "Fingerabdruck";
    not_trusted_yet: "It is not certain that this is the right server.",
        "Es ist nicht sicher, dass das der richtige Server ist.";
    not_trusted_yet_act: "Nothing was sent to it, not even your password. An administrator of this computer has to confirm the server first.",
        "Es wurde nichts dorthin gesendet, auch Ihr Kennwort nicht. Zuerst muss die Administration dieses Computers den Server bestätigen.";
    trust_confirmed: "The server is confirmed. Give your password once more: it was forgotten meanwhile.",
        "Der Server ist bestätigt. Geben Sie Ihr Kennwort noch einmal ein: Es wurde inzwischen vergessen.";

    // The page Configuration Manager.
    preferences_title: "Configuration Manager", "Configuration Manager";
    certificate: "Certificate", "Zertifikat";
    state_enrolled: "This computer is enrolled and managed.",
        "Dieser Computer ist registriert und wird verwaltet.";
    state_expired: "The certificate has expired: this computer is not managed any more.",
        "Das Zertifikat ist abgelaufen: Dieser Computer wird nicht mehr verwaltet.";
    state_not_enrolled: "This computer is not enrolled.", "Dieser Computer ist nicht registriert.";
    not_enrolled_yet: "Enroll it to give it a certificate. You need the name and password that you use at work.",
        "Registrieren Sie ihn, damit er ein Zertifikat bekommt. Sie brauchen Name und Kennwort, die Sie bei der Arbeit verwenden.";
    identifier: "Identifier (SMSID)", "Kennung (SMSID)";
    trust_is_unverified: "Nobody confirmed the server's fingerprint yet.",
        "Noch niemand hat den Fingerabdruck des Servers bestätigt.";
    renewal: "Renewal", "Erneuerung";
    by_itself: "Automatically", "Automatisch";
    next_reminder: "Next reminder", "Nächste Erinnerung";
    no_reminder: "None is needed", "Keine nötig";
    schedule: "Schedule of reminders", "Zeitplan der Erinnerungen";
    connection: "Server", "Server";
    reachable_name: "Connection", "Verbindung";
    last_check_in: "Last check-in", "Zuletzt gemeldet";
    never: "Never", "Noch nie";
    compliance: "Compliance", "Konformität";
    not_evaluated: "No rules were checked yet.", "Es wurden noch keine Regeln geprüft.";
    compliant: "This computer meets every rule.", "Dieser Computer erfüllt alle Regeln.";
    mends_itself: "It will be fixed automatically; you need not do anything.",
        "Das wird automatisch behoben; Sie müssen nichts tun.";
    needs_help: "It is not fixed automatically: ask your help desk.",
        "Das wird nicht automatisch behoben: Fragen Sie Ihren Helpdesk.";
    checking_in: "Checking in…", "Meldet sich beim Server …";
    saving: "Saving diagnostics…", "Diagnose wird gespeichert …";
    loading: "Asking the agent…", "Der Agent wird gefragt …";
    troubles: "Problems", "Probleme";

    // On a terminal.
    already_open: "the window is open already", "das Fenster ist schon offen";
    no_display: "cannot open a window here; on a terminal, use: perennial-agent renew --user NAME",
        "hier lässt sich kein Fenster öffnen; auf einem Terminal hilft: perennial-agent renew --user NAME";
}

/// Whole sentences.
impl Words {
    fn company(&self) -> Option<&str> {
        self.company.as_deref()
    }

    /// What stops working, and when.
    pub fn what_stops(&self, stage: ReminderStage, not_after: Timestamp) -> String {
        let by = self.company();
        if stage == ReminderStage::Expired {
            let by_en = by.map_or(String::new(), |company| format!(" by {company}"));
            let by_de = by.map_or(String::new(), |company| format!(" von {company}"));
            return self.say(
                format!(
                    "This computer is not managed{by_en} any more, and services that ask for its \
                     certificate turn it away, until you renew it."
                ),
                format!(
                    "Dieser Computer wird nicht mehr{by_de} verwaltet, und Dienste, die nach seinem \
                     Zertifikat fragen, weisen ihn ab, bis Sie es erneuern."
                ),
            );
        }
        let when = self.moment(not_after);
        let by_en = by.map_or(String::new(), |company| format!(" by {company}"));
        let by_de = by.map_or(String::new(), |company| format!(" von {company}"));
        self.say(
            format!(
                "After {when} this computer will no longer be managed{by_en}, and services that \
                 ask for its certificate will turn it away."
            ),
            format!(
                "Ab {} wird dieser Computer nicht mehr{by_de} verwaltet, und Dienste, die nach \
                 seinem Zertifikat fragen, weisen ihn ab.",
                self.moment_dative(not_after)
            ),
        )
    }

    pub fn expires_in(&self, left: SignedDuration) -> String {
        let left = self.left(left);
        self.say(
            format!("It expires in {left}."),
            format!("Es läuft in {left} ab."),
        )
    }

    pub fn expired_on(&self, not_after: Timestamp) -> String {
        let when = self.moment(not_after);
        self.say(
            format!("It expired on {when}."),
            format!("Es ist am {} abgelaufen.", self.moment_dative(not_after)),
        )
    }

    /// `9 days left`, `2 days ago`.
    pub fn time_left(&self, left: SignedDuration) -> String {
        if !left.is_positive() {
            let (number, unit) = largest(left.abs());
            let (english, german) = (
                self.count(number, unit, false),
                self.count(number, unit, true),
            );
            return self.say(format!("{english} ago"), format!("vor {german}"));
        }
        let (number, unit) = largest(left);
        let length = self.count(number, unit, false);
        self.say(format!("{length} left"), format!("noch {length}"))
    }

    pub fn later_until(&self, until: Option<Timestamp>) -> String {
        match until {
            Some(until) => {
                let when = self.moment(until);
                self.say(
                    format!("“Remind me later” brings this window back on {when}."),
                    format!(
                        "„Später erinnern“ zeigt dieses Fenster am {} wieder.",
                        self.moment_dative(until)
                    ),
                )
            }
            None => self.say(
                "“Remind me later” closes this window; it does not come back automatically."
                    .to_owned(),
                "„Später erinnern“ schließt dieses Fenster; es kommt nicht automatisch wieder."
                    .to_owned(),
            ),
        }
    }

    /// In the second period, none before it was put off.
    pub fn put_off(&self, times: u32) -> Option<String> {
        let (english, german) = match times {
            0 => return None,
            1 => ("once".to_owned(), "einmal".to_owned()),
            2 => ("twice".to_owned(), "zweimal".to_owned()),
            times => (format!("{times} times"), format!("{times}-mal")),
        };
        Some(self.say(
            format!("You put it off {english}."),
            format!("Sie haben es {german} verschoben."),
        ))
    }

    pub fn may_not_put_off(&self) -> &'static str {
        self.pick(
            "It cannot be put off any more.",
            "Es lässt sich nicht mehr verschieben.",
        )
    }

    /// `The new certificate is valid until …`.
    pub fn new_until(&self, not_after: Timestamp) -> String {
        let when = self.moment(not_after);
        self.say(
            format!("The new certificate is valid until {when}."),
            format!(
                "Das neue Zertifikat gilt bis {}.",
                self.moment_accusative(not_after)
            ),
        )
    }

    /// A failure in words that a person can act on: what it is, and what to do.
    pub fn failure(&self, failure: RenewalFailure) -> (&'static str, &'static str) {
        let (what, what_de, act, act_de) = match failure {
            RenewalFailure::WrongPassword => (
                "The user name or the password is wrong.",
                "Benutzername oder Kennwort ist falsch.",
                "Try again with the name and password that you use at work. Check whether Caps Lock is on.",
                "Versuchen Sie es noch einmal mit Name und Kennwort, die Sie bei der Arbeit verwenden. Prüfen Sie die Feststelltaste.",
            ),
            RenewalFailure::TooMany => (
                "There were too many attempts just now.",
                "Es gab gerade zu viele Versuche.",
                "Wait a minute and try again. After several wrong passwords it takes longer, up to an hour.",
                "Warten Sie eine Minute und versuchen Sie es dann wieder. Nach mehreren falschen Kennwörtern dauert es länger, bis zu einer Stunde.",
            ),
            RenewalFailure::Busy => (
                "The agent is still at work on something else.",
                "Der Agent arbeitet noch an etwas anderem.",
                "Try again in a moment.",
                "Versuchen Sie es gleich noch einmal.",
            ),
            RenewalFailure::NotAllowed => (
                "It is not allowed for this user or computer.",
                "Für diesen Benutzer oder Computer ist es nicht erlaubt.",
                "Your administrator can allow it. Give your help desk the details below.",
                "Ihre Administration kann es erlauben. Geben Sie Ihrem Helpdesk die Details.",
            ),
            RenewalFailure::SiteUnreachable => (
                "The server could not be reached.",
                "Der Server war nicht erreichbar.",
                "Connect to your company's network or VPN. This computer keeps trying automatically.",
                "Verbinden Sie sich mit dem Netz oder VPN Ihrer Firma. Dieser Computer versucht es automatisch weiter.",
            ),
            RenewalFailure::NotTrusted => (
                "This is not the server that this computer belongs to.",
                "Das ist nicht der Server, zu dem dieser Computer gehört.",
                "Nothing was sent to it, not even your password. You may be in a foreign network; tell your help desk if it happens again.",
                "Es wurde nichts dorthin gesendet, auch Ihr Kennwort nicht. Vielleicht sind Sie in einem fremden Netz; sagen Sie Ihrem Helpdesk Bescheid, wenn es wieder geschieht.",
            ),
            RenewalFailure::Other => (
                "Something unexpected went wrong.",
                "Etwas Unerwartetes kam dazwischen.",
                "Try again. If it happens again, give your help desk the details below.",
                "Versuchen Sie es noch einmal. Wenn es wieder geschieht, geben Sie Ihrem Helpdesk die Details.",
            ),
        };
        (self.pick(what, what_de), self.pick(act, act_de))
    }

    pub fn help_desk(&self, help_desk: &str) -> String {
        self.say(
            format!("Help desk: {help_desk}"),
            format!("Helpdesk: {help_desk}"),
        )
    }

    /// `71 % of its life is over`.
    pub fn bar_value(&self, percent: u8, left: SignedDuration) -> String {
        let left = self.time_left(left);
        self.say(
            format!("{percent} % of its life is over, {left}"),
            format!("{percent} % der Laufzeit sind vorbei, {left}"),
        )
    }

    pub fn issued_on(&self, at: Timestamp) -> String {
        let date = self.short_date(at);
        self.say(format!("Issued {date}"), format!("Ausgestellt {date}"))
    }

    pub fn expires_on(&self, at: Timestamp, over: bool) -> String {
        let date = self.short_date(at);
        match over {
            false => self.say(format!("Expires {date}"), format!("Läuft ab {date}")),
            true => self.say(format!("Expired {date}"), format!("Abgelaufen {date}")),
        }
    }

    pub fn welcome(&self) -> String {
        match self.company() {
            Some(company) => self.say(
                format!(
                    "A certificate makes this computer known at {company}. Its key never leaves it."
                ),
                format!(
                    "Ein Zertifikat macht diesen Computer bei {company} bekannt. Sein Schlüssel \
                     verlässt ihn nie."
                ),
            ),
            None => self
                .pick(
                    "A certificate makes this computer known at your company. Its key never leaves it.",
                    "Ein Zertifikat macht diesen Computer in Ihrer Firma bekannt. Sein Schlüssel verlässt ihn nie.",
                )
                .to_owned(),
        }
    }

    pub fn silent_renewal(&self, mode: RenewalMode, at: Option<Timestamp>) -> String {
        match (mode, at) {
            (RenewalMode::Automatic, Some(at)) => self.moment(at),
            (RenewalMode::Automatic, None) => self
                .pick("Yes, no time is known yet", "Ja, noch ohne Zeitpunkt")
                .to_owned(),
            (RenewalMode::Prompt, _) => self
                .pick(
                    "No: you are reminded, and give your password",
                    "Nein: Sie werden erinnert und geben Ihr Kennwort ein",
                )
                .to_owned(),
            (RenewalMode::Manual, _) => self
                .pick(
                    "No: an administrator renews it, or you do here",
                    "Nein: Die Administration erneuert es, oder Sie tun es hier",
                )
                .to_owned(),
        }
    }

    /// A key of the schedule, in words, with its value.
    pub fn setting(&self, setting: &RenewalSetting) -> (&'static str, String) {
        let length = self.length(setting.effective);
        match setting.key {
            RenewalKey::Period1 => (
                self.pick("First period", "Erster Zeitraum"),
                self.say(
                    format!("{length} before it expires"),
                    format!("{length} vor dem Ablauf"),
                ),
            ),
            RenewalKey::Period2 => (
                self.pick("Second period", "Zweiter Zeitraum"),
                self.say(
                    format!("{length} before it expires"),
                    format!("{length} vor dem Ablauf"),
                ),
            ),
            RenewalKey::ReminderInterval1 => (
                self.pick("Reminder in the first", "Erinnerung im ersten"),
                self.every(setting.effective),
            ),
            RenewalKey::ReminderInterval2 => (
                self.pick("Reminder in the second", "Erinnerung im zweiten"),
                self.every(setting.effective),
            ),
        }
    }

    /// Why a configured value is not used.
    pub fn setting_notice(&self, setting: &RenewalSetting, unused: &Unused) -> String {
        let (english, german) = match unused {
            Unused::NotAString => (
                "it is not a string".to_owned(),
                "er ist kein Text".to_owned(),
            ),
            Unused::NotANumber => (
                "it is not a plain number of seconds".to_owned(),
                "er ist keine einfache Zahl von Sekunden".to_owned(),
            ),
            Unused::PeriodTooShort => (
                "it has to be at least 300 seconds".to_owned(),
                "er muss mindestens 300 Sekunden sein".to_owned(),
            ),
            Unused::IntervalTooShort => (
                "it has to be more than 300 seconds".to_owned(),
                "er muss mehr als 300 Sekunden sein".to_owned(),
            ),
            Unused::NotLessThanPeriod1(least) => (
                format!("it has to be less than {} ({least})", RenewalKey::Period1),
                format!("er muss kleiner sein als {} ({least})", RenewalKey::Period1),
            ),
            Unused::LongerThanPeriod1(most) => longer(RenewalKey::Period1, *most),
            Unused::LongerThanPeriod2(most) => longer(RenewalKey::Period2, *most),
            Unused::LongerThanInterval1(most) => longer(RenewalKey::ReminderInterval1, *most),
        };
        let (key, raw) = (setting.key, setting.raw.as_deref().unwrap_or_default());
        self.say(
            format!("{key} is set to {raw}, which is not used: {english}."),
            format!("{key} ist auf {raw} gesetzt; dieser Wert wird nicht verwendet: {german}."),
        )
    }

    /// What did not work the last time, and what comes of it.
    pub fn trouble(&self, trouble: &LocalTrouble) -> &'static str {
        match (trouble.of, trouble.refused) {
            (TroubleOf::CheckIn, false) => self.pick(
                "The last check-in failed. It will be tried again automatically.",
                "Die letzte Meldung beim Server ist gescheitert. Sie wird automatisch wiederholt.",
            ),
            (TroubleOf::CheckIn, true) => self.pick(
                "The server refused the last check-in. Tell your help desk.",
                "Der Server hat die letzte Meldung abgelehnt. Sagen Sie Ihrem Helpdesk Bescheid.",
            ),
            (TroubleOf::Renewal, false) => self.pick(
                "The last renewal failed. It will be tried again automatically.",
                "Die letzte Erneuerung ist gescheitert. Sie wird automatisch wiederholt.",
            ),
            (TroubleOf::Renewal, true) => self.pick(
                "The server refused to renew the certificate. Tell your help desk.",
                "Der Server hat die Erneuerung abgelehnt. Sagen Sie Ihrem Helpdesk Bescheid.",
            ),
            (TroubleOf::Policy, _) => self.pick(
                "The policy could not be fetched. It will be tried again automatically.",
                "Die Richtlinie ließ sich nicht abholen. Es wird automatisch wieder versucht.",
            ),
            (TroubleOf::Results, _) => self.pick(
                "Results could not be delivered. They will be sent again automatically.",
                "Ergebnisse ließen sich nicht abliefern. Es wird automatisch wieder versucht.",
            ),
            (TroubleOf::PolicyList, _) => self.pick(
                "The policy is not as it should be, and is not used. Tell your help desk.",
                "Die Richtlinie ist fehlerhaft und wird nicht verwendet. Sagen Sie Ihrem Helpdesk Bescheid.",
            ),
            (TroubleOf::Command, _) => self.pick(
                "A command was not carried out. Tell your help desk.",
                "Ein Befehl wurde nicht ausgeführt. Sagen Sie Ihrem Helpdesk Bescheid.",
            ),
        }
    }

    pub fn reachable(&self, reachable: bool) -> &'static str {
        if reachable {
            self.pick("Reachable", "Erreichbar")
        } else {
            self.pick(
                "Not reachable; this computer keeps trying",
                "Nicht erreichbar; dieser Computer versucht es weiter",
            )
        }
    }

    pub fn rule_state(&self, state: ComplianceState) -> &'static str {
        match state {
            ComplianceState::NonCompliant => self.pick("Not met", "Nicht erfüllt"),
            ComplianceState::RemediationFailed => self.pick(
                "The automatic fix did not help",
                "Automatisches Beheben half nicht",
            ),
            ComplianceState::Error => self.pick("Could not be checked", "Ließ sich nicht prüfen"),
            ComplianceState::Unknown => self.pick("Not checked yet", "Noch nicht geprüft"),
            ComplianceState::Compliant => self.pick("Met", "Erfüllt"),
            ComplianceState::Remediated => self.pick("Fixed", "Behoben"),
            ComplianceState::Exempt => self.pick("Exempt", "Ausgenommen"),
            ComplianceState::NotApplicable => self.pick("Does not apply here", "Gilt hier nicht"),
        }
    }

    pub fn since(&self, at: Timestamp) -> String {
        let when = self.moment(at);
        self.say(
            format!("since {when}"),
            format!("seit {}", self.moment_dative(at)),
        )
    }

    pub fn rules_not_met(&self, rules: usize) -> String {
        match rules {
            1 => self
                .pick("1 rule needs attention", "1 Regel braucht Aufmerksamkeit")
                .to_owned(),
            rules => self.say(
                format!("{rules} rules need attention"),
                format!("{rules} Regeln brauchen Aufmerksamkeit"),
            ),
        }
    }

    pub fn checked_in(&self, at: Timestamp) -> String {
        let when = self.moment(at);
        self.say(
            format!("Checked in on {when}."),
            format!("Beim Server gemeldet am {}.", self.moment_dative(at)),
        )
    }

    pub fn saved(&self, path: &str) -> String {
        self.say(
            format!("Diagnostics are in {path}"),
            format!("Die Diagnose ist in {path}"),
        )
    }

    pub fn not_saved(&self, reason: &str) -> String {
        self.say(
            format!("Diagnostics could not be saved: {reason}"),
            format!("Die Diagnose ließ sich nicht speichern: {reason}"),
        )
    }

    pub fn step_state(&self, step: &str, state: &str) -> String {
        format!("{step}: {state}")
    }

    pub fn agent_version(&self, version: &str) -> String {
        self.say(format!("Agent {version}"), format!("Agent {version}"))
    }
}

/// Dates and lengths of time.
impl Words {
    fn local(&self, at: Timestamp) -> Zoned {
        at.to_zoned(self.zone.clone())
    }

    /// `Friday, 4 December 2026 at 14:30`, `Freitag, 4. Dezember 2026, 14:30 Uhr`.
    pub fn moment(&self, at: Timestamp) -> String {
        let time = self.time(at);
        self.say(
            format!("{} at{NO_BREAK}{time}", self.date(at)),
            format!("{}, {time}{NO_BREAK}Uhr", self.date(at)),
        )
    }

    /// After `am`, `ab`, `seit`: `Freitag, dem 4. Dezember 2026, 14:30 Uhr`.
    fn moment_dative(&self, at: Timestamp) -> String {
        self.moment_with_article(at, "dem")
    }

    /// After `bis`: `Freitag, den 4. Dezember 2026, 14:30 Uhr`.
    fn moment_accusative(&self, at: Timestamp) -> String {
        self.moment_with_article(at, "den")
    }

    fn moment_with_article(&self, at: Timestamp, article: &str) -> String {
        let local = self.local(at);
        format!(
            "{}, {article} {}. {} {}, {}{NO_BREAK}Uhr",
            weekday(self.language, &local),
            local.day(),
            month(self.language, &local),
            local.year(),
            self.time(at)
        )
    }

    fn date(&self, at: Timestamp) -> String {
        let local = self.local(at);
        let (weekday, month) = (weekday(self.language, &local), month(self.language, &local));
        let (day, year) = (local.day(), local.year());
        match self.language {
            Language::German => format!("{weekday}, {day}. {month} {year}"),
            Language::English if self.american => format!("{weekday}, {month} {day}, {year}"),
            Language::English => format!("{weekday}, {day} {month} {year}"),
        }
    }

    /// `4 Dec 2026`, `4. Dez. 2026`.
    pub fn short_date(&self, at: Timestamp) -> String {
        let local = self.local(at);
        let (day, year) = (local.day(), local.year());
        let month = month(self.language, &local);
        match self.language {
            Language::German => {
                let short = match month {
                    "Mai" | "Juni" | "Juli" | "März" => month.to_owned(),
                    "September" => "Sept.".to_owned(),
                    _ => format!("{}.", month.chars().take(3).collect::<String>()),
                };
                format!("{day}.{NO_BREAK}{short}{NO_BREAK}{year}")
            }
            Language::English if self.american => {
                format!("{}{NO_BREAK}{day},{NO_BREAK}{year}", &month[..3])
            }
            Language::English => format!("{day}{NO_BREAK}{}{NO_BREAK}{year}", &month[..3]),
        }
    }

    /// `14:30`, or `2:30 PM` in the United States.
    fn time(&self, at: Timestamp) -> String {
        let local = self.local(at);
        let (hour, minute) = (local.hour(), local.minute());
        if self.american {
            let half = if hour < 12 { "AM" } else { "PM" };
            let hour = (hour + 11) % 12 + 1;
            return format!("{hour}:{minute:02}{NO_BREAK}{half}");
        }
        format!("{hour:02}:{minute:02}")
    }

    /// For `in …`: the largest unit that is not coarse.
    pub fn left(&self, left: SignedDuration) -> String {
        let (number, unit) = largest(left);
        self.count(number, unit, true)
    }

    /// A length that is set: the two largest units.
    pub fn length(&self, seconds: u64) -> String {
        const UNITS: [(u64, Unit); 4] = [
            (86_400, Unit::Day),
            (3600, Unit::Hour),
            (60, Unit::Minute),
            (1, Unit::Second),
        ];
        let mut rest = seconds;
        let mut parts = Vec::new();
        for (size, unit) in UNITS {
            let number = rest / size;
            rest %= size;
            if number > 0 {
                parts.push(self.count(number, unit, false));
            }
        }
        parts.truncate(2);
        parts.join(" ")
    }

    /// `every 8 hours`, `every day`: in the largest unit of which it is a whole number.
    fn every(&self, seconds: u64) -> String {
        const UNITS: [(u64, Unit, &str, &str); 4] = [
            (86_400, Unit::Day, "every day", "jeden Tag"),
            (3600, Unit::Hour, "every hour", "jede Stunde"),
            (60, Unit::Minute, "every minute", "jede Minute"),
            (1, Unit::Second, "every second", "jede Sekunde"),
        ];
        let whole = UNITS
            .into_iter()
            .find(|(size, ..)| seconds.is_multiple_of(*size));
        let (size, unit, english, german) = whole.unwrap_or(UNITS[3]);
        if seconds == size {
            return self.pick(english, german).to_owned();
        }
        let length = self.count(seconds / size, unit, false);
        self.say(format!("every {length}"), format!("alle {length}"))
    }

    fn count(&self, number: u64, unit: Unit, dative: bool) -> String {
        let one = number == 1;
        let unit = match (self.language, unit) {
            (Language::English, Unit::Day) if one => "day",
            (Language::English, Unit::Day) => "days",
            (Language::English, Unit::Hour) if one => "hour",
            (Language::English, Unit::Hour) => "hours",
            (Language::English, Unit::Minute) if one => "minute",
            (Language::English, Unit::Minute) => "minutes",
            (Language::English, Unit::Second) if one => "second",
            (Language::English, Unit::Second) => "seconds",
            (Language::German, Unit::Day) if one => "Tag",
            (Language::German, Unit::Day) if dative => "Tagen",
            (Language::German, Unit::Day) => "Tage",
            (Language::German, Unit::Hour) if one => "Stunde",
            (Language::German, Unit::Hour) => "Stunden",
            (Language::German, Unit::Minute) if one => "Minute",
            (Language::German, Unit::Minute) => "Minuten",
            (Language::German, Unit::Second) if one => "Sekunde",
            (Language::German, Unit::Second) => "Sekunden",
        };
        format!("{number}{NO_BREAK}{unit}")
    }
}

fn longer(than: RenewalKey, most: u64) -> (String, String) {
    (
        format!("it is longer than {than} ({most})"),
        format!("er ist länger als {than} ({most})"),
    )
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Day,
    Hour,
    Minute,
    Second,
}

/// Days from two days on, hours from two hours on, and minutes, at least one.
fn largest(left: SignedDuration) -> (u64, Unit) {
    let seconds = u64::try_from(left.as_secs()).unwrap_or(0);
    match seconds {
        seconds if seconds >= 2 * 86_400 => (seconds / 86_400, Unit::Day),
        seconds if seconds >= 2 * 3600 => (seconds / 3600, Unit::Hour),
        seconds => ((seconds / 60).max(1), Unit::Minute),
    }
}

fn weekday(language: Language, local: &Zoned) -> &'static str {
    const NAMES: [[&str; 2]; 7] = [
        ["Monday", "Montag"],
        ["Tuesday", "Dienstag"],
        ["Wednesday", "Mittwoch"],
        ["Thursday", "Donnerstag"],
        ["Friday", "Freitag"],
        ["Saturday", "Samstag"],
        ["Sunday", "Sonntag"],
    ];
    let day = usize::try_from(local.weekday().to_monday_zero_offset()).unwrap_or(0);
    NAMES[day][language as usize]
}

fn month(language: Language, local: &Zoned) -> &'static str {
    const NAMES: [[&str; 2]; 12] = [
        ["January", "Januar"],
        ["February", "Februar"],
        ["March", "März"],
        ["April", "April"],
        ["May", "Mai"],
        ["June", "Juni"],
        ["July", "Juli"],
        ["August", "August"],
        ["September", "September"],
        ["October", "Oktober"],
        ["November", "November"],
        ["December", "Dezember"],
    ];
    let month = usize::try_from(local.month()).unwrap_or(1);
    NAMES[month.saturating_sub(1)][language as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    /// With plain spaces.
    fn plain(words: &str) -> String {
        words.replace(NO_BREAK, " ")
    }

    fn zone(hours: i8) -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(hours))
    }

    #[test]
    fn the_language_is_the_managed_one_or_that_of_the_session() {
        let chosen = |configured, locale| Words::choose(configured, locale, TimeZone::UTC).language;
        for (configured, locale, language) in [
            (None, "", Language::English),
            (None, "C.UTF-8", Language::English),
            (None, "de_CH.UTF-8", Language::German),
            (None, "DE", Language::German),
            (Some("de-AT"), "en_US.UTF-8", Language::German),
            (Some("en"), "de_DE.UTF-8", Language::English),
            (None, "den", Language::English),
        ] {
            assert_eq!(
                chosen(configured, locale),
                language,
                "{configured:?} {locale}"
            );
        }
    }

    #[test]
    fn moments_are_written_as_people_write_them_where_they_are() {
        let end = at("2026-12-31T23:05:00Z");
        let words = |locale| Words::choose(None, locale, zone(1));
        assert_eq!(
            plain(&words("en_GB").moment(end)),
            "Friday, 1 January 2027 at 00:05"
        );
        assert_eq!(
            plain(&words("en_US").moment(end)),
            "Friday, January 1, 2027 at 12:05 AM"
        );
        assert_eq!(
            plain(&words("de_DE").moment(end)),
            "Freitag, 1. Januar 2027, 00:05 Uhr"
        );
        assert_eq!(
            plain(&words("de_DE").short_date(at("2026-03-04T12:00:00Z"))),
            "4. März 2026"
        );
        assert_eq!(
            plain(&words("de_DE").short_date(at("2026-12-04T12:00:00Z"))),
            "4. Dez. 2026"
        );
        assert_eq!(
            plain(&words("en_GB").short_date(at("2026-12-04T12:00:00Z"))),
            "4 Dec 2026"
        );
    }

    #[test]
    fn plurals_are_right() {
        let english = Words::new(Language::English, TimeZone::UTC);
        let german = Words::new(Language::German, TimeZone::UTC);
        for (seconds, in_english, in_german) in [
            (45 * 86_400, "in 45 days", "in 45 Tagen"),
            (86_400, "in 24 hours", "in 24 Stunden"),
            (3 * 3600 + 59, "in 3 hours", "in 3 Stunden"),
            (3600, "in 60 minutes", "in 60 Minuten"),
            (61, "in 1 minute", "in 1 Minute"),
            (0, "in 1 minute", "in 1 Minute"),
        ] {
            let left = SignedDuration::from_secs(seconds);
            assert_eq!(plain(&format!("in {}", english.left(left))), in_english);
            assert_eq!(plain(&format!("in {}", german.left(left))), in_german);
        }
        assert_eq!(plain(&english.length(3_888_000)), "45 days");
        assert_eq!(plain(&german.length(3_888_000)), "45 Tage");
        assert_eq!(plain(&english.length(90_061)), "1 day 1 hour");
        assert_eq!(plain(&german.length(301)), "5 Minuten 1 Sekunde");
        assert_eq!(plain(&english.every(28_800)), "every 8 hours");
        assert_eq!(plain(&german.every(86_400)), "jeden Tag");
        assert_eq!(plain(&english.every(90_000)), "every 25 hours");
        assert_eq!(plain(&german.every(301)), "alle 301 Sekunden");
        assert_eq!(english.put_off(0), None);
        assert_eq!(english.put_off(1).expect("a count"), "You put it off once.");
        assert_eq!(
            german.put_off(5).expect("a count"),
            "Sie haben es 5-mal verschoben."
        );
        assert_eq!(english.rules_not_met(1), "1 rule needs attention");
        assert_eq!(german.rules_not_met(2), "2 Regeln brauchen Aufmerksamkeit");
    }

    #[test]
    fn the_notice_says_what_stops_and_when() {
        let end = at("2026-12-04T13:30:00Z");
        let words = Words::choose(None, "de", zone(1)).of_company(Some("Contoso".to_owned()));
        assert_eq!(
            plain(&words.what_stops(ReminderStage::SecondPeriod, end)),
            "Ab Freitag, dem 4. Dezember 2026, 14:30 Uhr wird dieser Computer nicht mehr von \
             Contoso verwaltet, und Dienste, die nach seinem Zertifikat fragen, weisen ihn ab."
        );
        let words = Words::choose(None, "en", zone(1));
        assert_eq!(
            plain(&words.what_stops(ReminderStage::FirstPeriod, end)),
            "After Friday, 4 December 2026 at 14:30 this computer will no longer be managed, \
             and services that ask for its certificate will turn it away."
        );
    }
}

//! What the desktop says, and what is asked of it: its colours, whether a person presents something, and
//! notifications. All of it waits for other programs, and for none of them longer than a moment.

use std::time::Duration;

use crate::theme::Scheme;

/// A word for the desktop, from the reminder to the person.
pub struct Notification<'a> {
    pub title: &'a str,
    pub text: &'a str,
    /// The name of its button.
    pub action: &'a str,
    /// It stays until the person has seen it.
    pub urgent: bool,
}

#[cfg(target_os = "linux")]
pub use linux::{Shown, is_busy, notify, scheme};

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::sync::mpsc::channel;
    use std::thread;

    use x11rb::protocol::xproto::{AtomEnum, ConnectionExt, Window};
    use x11rb::rust_connection::RustConnection;
    use zbus::MatchRule;
    use zbus::blocking::connection::Builder;
    use zbus::blocking::{Connection, MessageIterator};
    use zbus::zvariant::{OwnedValue, Value};

    use super::{Duration, Notification, Scheme};

    /// A desktop that does not answer keeps nobody waiting.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Connecting has no limit of its own: not with a display that hangs, nor with a bus.
    fn within_a_moment<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (tell, told) = channel();
        thread::spawn(move || {
            let _ = tell.send(ask());
        });
        told.recv_timeout(PATIENCE * 2).ok()
    }

    fn session_bus() -> Option<Connection> {
        let bus = Builder::session().ok()?.method_timeout(PATIENCE);
        bus.build().ok()
    }

    /// Light or dark, as the desktop's portal has it (`org.freedesktop.appearance`); none when nobody says.
    pub fn scheme() -> Option<Scheme> {
        within_a_moment(scheme_of_portal)?
    }

    fn scheme_of_portal() -> Option<Scheme> {
        const PORTAL: &str = "org.freedesktop.portal.Desktop";
        let bus = session_bus()?;
        let answer = bus.call_method(
            Some(PORTAL),
            "/org/freedesktop/portal/desktop",
            Some("org.freedesktop.portal.Settings"),
            "Read",
            &("org.freedesktop.appearance", "color-scheme"),
        );
        let value: OwnedValue = answer.ok()?.body().deserialize().ok()?;
        of_portal(&value)
    }

    /// 1 is dark, 2 is light, 0 is no preference. `Read` wraps the value in one more variant than it
    /// should, and will not be changed.
    pub(super) fn of_portal(value: &Value<'_>) -> Option<Scheme> {
        match value {
            Value::Value(inner) => of_portal(inner),
            Value::U32(1) => Some(Scheme::Dark),
            Value::U32(2) => Some(Scheme::Light),
            _ => None,
        }
    }

    /// Somebody presents, watches or calls: a program fills the screen, or keeps it from going dark. Under
    /// Wayland nobody tells which window fills the screen; there the second is what is known.
    pub fn is_busy() -> bool {
        let fills = within_a_moment(fills_the_screen).flatten();
        let keeps = || within_a_moment(|| session_bus().is_some_and(|bus| keeps_awake(&bus)));
        fills.unwrap_or(false) || keeps().unwrap_or(false)
    }

    /// Extended window manager hints 1.5: `_NET_ACTIVE_WINDOW`, `_NET_WM_STATE`.
    fn fills_the_screen() -> Option<bool> {
        std::env::var_os("DISPLAY")?;
        let (x, screen) = x11rb::connect(None).ok()?;
        let root = x11rb::connection::Connection::setup(&x)
            .roots
            .get(screen)?
            .root;
        let active = *property(&x, root, "_NET_ACTIVE_WINDOW", AtomEnum::WINDOW)?.first()?;
        let states = property(&x, active, "_NET_WM_STATE", AtomEnum::ATOM)?;
        Some(states.contains(&atom(&x, "_NET_WM_STATE_FULLSCREEN")?))
    }

    fn atom(x: &RustConnection, name: &str) -> Option<u32> {
        let reply = x.intern_atom(false, name.as_bytes()).ok()?.reply().ok()?;
        Some(reply.atom)
    }

    fn property(x: &RustConnection, of: Window, name: &str, kind: AtomEnum) -> Option<Vec<u32>> {
        let name = atom(x, name)?;
        let asked = x.get_property(false, of, name, kind, 0, 64).ok()?;
        Some(asked.reply().ok()?.value32()?.collect())
    }

    /// The session managers of GNOME and of those with the older interface of freedesktop.org (KDE, Xfce).
    fn keeps_awake(bus: &Connection) -> bool {
        /// The session must not be marked as idle.
        const IDLE: u32 = 8;
        let gnome = bus.call_method(
            Some("org.gnome.SessionManager"),
            "/org/gnome/SessionManager",
            Some("org.gnome.SessionManager"),
            "IsInhibited",
            &IDLE,
        );
        let others = || {
            bus.call_method(
                Some("org.freedesktop.PowerManagement"),
                "/org/freedesktop/PowerManagement/Inhibit",
                Some("org.freedesktop.PowerManagement.Inhibit"),
                "HasInhibit",
                &(),
            )
        };
        let says = |answer: zbus::Result<zbus::Message>| answer.ok()?.body().deserialize().ok();
        says(gnome).or_else(|| says(others())).unwrap_or(false)
    }

    const SERVICE: &str = "org.freedesktop.Notifications";
    const PATH: &str = "/org/freedesktop/Notifications";

    /// A notification on the screen (Desktop Notifications Specification 1.2).
    pub struct Shown {
        bus: Connection,
        id: u32,
        signals: Option<MessageIterator>,
    }

    fn ask<B>(bus: &Connection, method: &str, body: &B) -> Option<zbus::Message>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let answer = bus.call_method(Some(SERVICE), PATH, Some(SERVICE), method, body);
        answer.ok()
    }

    /// Shows it. None where nobody shows notifications, or not with a button: a word that nothing can be
    /// done about is none.
    pub fn notify(notification: &Notification<'_>) -> Option<Shown> {
        let bus = within_a_moment(session_bus)??;
        let able = ask(&bus, "GetCapabilities", &())?;
        let able: Vec<String> = able.body().deserialize().ok()?;
        if !able.iter().any(|what| what == "actions") {
            return None;
        }
        // Listening comes first: it may be pressed at once.
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .interface(SERVICE)
            .ok()?
            .path(PATH)
            .ok()?
            .build();
        let signals = MessageIterator::for_match_rule(rule, &bus, None).ok()?;
        let urgency: u8 = if notification.urgent { 2 } else { 1 };
        let hints = HashMap::from([
            ("urgency", Value::from(urgency)),
            ("desktop-entry", Value::from("perennial-wizard")),
        ]);
        // A press on the notification itself is the default action.
        let actions = ["default", notification.action, "open", notification.action];
        let (replaces, server_decides) = (0_u32, -1_i32);
        let body = (
            "Perennial",
            replaces,
            "perennial-wizard",
            notification.title,
            notification.text,
            actions.as_slice(),
            hints,
            server_decides,
        );
        let id = ask(&bus, "Notify", &body)?.body().deserialize().ok()?;
        let signals = Some(signals);
        Some(Shown { bus, id, signals })
    }

    impl Shown {
        /// Calls `tell` once, on a thread: with true when the person presses it, with false when it is gone.
        pub fn tell(&mut self, tell: impl FnOnce(bool) + Send + 'static) {
            let (signals, id) = (self.signals.take(), self.id);
            thread::spawn(move || {
                let end =
                    signals.and_then(|mut signals| signals.find_map(|signal| end(&signal, id)));
                tell(end.unwrap_or(false));
            });
        }

        /// Takes it from the screen.
        pub fn close(self) {
            ask(&self.bus, "CloseNotification", &self.id);
        }
    }

    /// What a signal says of the notification's end: true when it was pressed.
    fn end(signal: &zbus::Result<zbus::Message>, id: u32) -> Option<bool> {
        let Ok(signal) = signal else {
            return Some(false);
        };
        let body = signal.body();
        let (of, pressed) = match signal.header().member()?.as_str() {
            "ActionInvoked" => (body.deserialize::<(u32, String)>().ok()?.0, true),
            "NotificationClosed" => (body.deserialize::<(u32, u32)>().ok()?.0, false),
            _ => return None,
        };
        (of == id).then_some(pressed)
    }
}

/// A Mac: the toolkit hears the colours from the system; what fills the screen is not known yet.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::{Notification, Scheme};

    pub fn scheme() -> Option<Scheme> {
        None
    }

    pub fn is_busy() -> bool {
        false
    }

    pub enum Shown {}

    pub fn notify(_notification: &Notification<'_>) -> Option<Shown> {
        None
    }

    impl Shown {
        pub fn tell(&mut self, _tell: impl FnOnce(bool) + Send + 'static) {}

        pub fn close(self) {}
    }
}
#[cfg(not(target_os = "linux"))]
pub use elsewhere::{Shown, is_busy, notify, scheme};

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use zbus::zvariant::Value;

    use super::*;

    #[test]
    fn the_portal_answers_with_a_number() {
        let wrapped = |value: u32| Value::Value(Box::new(Value::from(value)));
        for (answer, scheme) in [
            (Value::from(1_u32), Some(Scheme::Dark)),
            (wrapped(1), Some(Scheme::Dark)),
            (wrapped(2), Some(Scheme::Light)),
            (wrapped(0), None),
            (Value::from("dark"), None),
        ] {
            assert_eq!(linux::of_portal(&answer), scheme, "{answer:?}");
        }
    }
}

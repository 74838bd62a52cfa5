//! The action that a client requests: one of the three fence actions, or another word.

use std::fmt;
use std::str::FromStr;

/// An action that changes the power or the storage access of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FenceAction {
    /// Cut the target off.
    Off,
    /// Bring the target back (unfencing).
    On,
    /// `Off`, confirmed, then `On`.
    Reboot,
}

impl FenceAction {
    /// The word for the action in requests, answers and options.
    pub fn as_str(self) -> &'static str {
        match self {
            FenceAction::Off => "off",
            FenceAction::On => "on",
            FenceAction::Reboot => "reboot",
        }
    }

    /// Whether an answer with `performed` proves at least the effect of this action.
    ///
    /// `off` fulfils a reboot: the cluster waits until the target is cut off (Pacemaker itself maps
    /// reboot to off if an agent offers no reboot). A reboot does not fulfil `off`, because the
    /// target comes back. Unknown words prove nothing.
    pub fn is_fulfilled_by(self, performed: &str) -> bool {
        match self {
            FenceAction::Off => performed == "off",
            FenceAction::On => performed == "on",
            FenceAction::Reboot => performed == "reboot" || performed == "off",
        }
    }
}

impl fmt::Display for FenceAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FenceAction {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [FenceAction::Off, FenceAction::On, FenceAction::Reboot];
        all.into_iter().find(|action| action.as_str() == text).ok_or(())
    }
}

/// The `action` member of any client's request file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Requested {
    /// A fence.
    Fence(FenceAction),
    /// `status`, `list` or `monitor`, which older clients send as request files: an inquiry, never
    /// a fence.
    Inquiry(&'static str),
    /// Any other word: the watcher refuses it.
    Unknown(String),
}

impl Requested {
    /// The action as the client wrote it.
    pub fn as_str(&self) -> &str {
        match self {
            Requested::Fence(action) => action.as_str(),
            Requested::Inquiry(word) => word,
            Requested::Unknown(word) => word,
        }
    }
}

impl From<&str> for Requested {
    fn from(text: &str) -> Self {
        match (text.parse(), text) {
            (Ok(action), _) => Requested::Fence(action),
            (_, "status") => Requested::Inquiry("status"),
            (_, "list" | "list-status") => Requested::Inquiry("list"),
            (_, "monitor") => Requested::Inquiry("monitor"),
            _ => Requested::Unknown(crate::bounded(text, 64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_equal_or_stronger_action_fulfils_a_request() {
        assert!(FenceAction::Reboot.is_fulfilled_by("off"));
        assert!(FenceAction::Reboot.is_fulfilled_by("reboot"));
        assert!(!FenceAction::Off.is_fulfilled_by("reboot"));
        assert!(!FenceAction::Off.is_fulfilled_by("on"));
        assert!(!FenceAction::On.is_fulfilled_by("off"));
        assert!(!FenceAction::Reboot.is_fulfilled_by("Off"));
        assert!(!FenceAction::Reboot.is_fulfilled_by(""));
    }

    #[test]
    fn questions_are_never_fences() {
        for word in ["status", "list", "list-status", "monitor"] {
            assert!(matches!(Requested::from(word), Requested::Inquiry(_)), "{word}");
        }
        assert_eq!(Requested::from("OFF"), Requested::Unknown("OFF".into()));
    }
}

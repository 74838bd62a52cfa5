//! The answers of all sources together.

use std::collections::BTreeMap;
use std::fmt;

use fence_protocol::bounded;

/// A source of information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The kernel's lockspaces.
    Dlm,
    /// Pacemaker's configuration and status.
    Cib,
    /// Near Node Flash.
    Nnf,
}

impl Source {
    /// The word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Dlm => "dlm",
            Source::Cib => "cib",
            Source::Nnf => "nnf",
        }
    }
}

/// The answer of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The file systems that the target holds, as far as this source knows.
    Answered {
        /// The file systems.
        held: Vec<Held>,
        /// The part that the source could not see.
        remark: Option<String>,
    },
    /// The source exists, but could not answer, for this reason.
    Blind(String),
    /// This node has no such source, for this reason.
    Absent(String),
}

/// A file system that a source knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name: the part of its lock table after the colon, which is also its lockspace's name.
    pub name: String,
    /// How the source knows it.
    pub how: String,
}

/// The result of a discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    reports: Vec<(Source, Report)>,
}

/// The conclusion from all sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The target holds at least one file system.
    Found,
    /// A source answered, and no source knows a file system of the target.
    None,
    /// No source answered.
    Unknown,
}

/// The most file systems that are named, and the longest name in bytes: a watcher refuses a request
/// that is too large, and no discovery may cause this.
const NAMES_MAX: usize = 1000;
const NAME_BYTES_MAX: usize = 255;

impl Discovery {
    /// The result of these answers.
    pub fn new(mut reports: Vec<(Source, Report)>) -> Self {
        for (_, report) in &mut reports {
            if let Report::Answered { held, .. } = report {
                for held in held {
                    held.name = bounded(&held.name, NAME_BYTES_MAX);
                }
            }
        }
        Discovery { reports }
    }

    /// Each file system, with the sources that know it and how.
    pub fn learned(&self) -> BTreeMap<&str, Vec<(Source, &str)>> {
        let mut learned: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (source, report) in &self.reports {
            let Report::Answered { held, .. } = report else { continue };
            for held in held {
                if learned.len() < NAMES_MAX || learned.contains_key(held.name.as_str()) {
                    learned.entry(&held.name).or_default().push((*source, held.how.as_str()));
                }
            }
        }
        learned
    }

    /// The file systems, each once, sorted.
    pub fn names(&self) -> Vec<String> {
        self.learned().into_keys().map(str::to_owned).collect()
    }

    /// The answer of each source, the most reliable source first.
    pub fn reports(&self) -> &[(Source, Report)] {
        &self.reports
    }

    /// The conclusion from all sources.
    pub fn outcome(&self) -> Finding {
        let answered = |(_, report): &(Source, Report)| matches!(report, Report::Answered { .. });
        if !self.learned().is_empty() {
            Finding::Found
        } else if self.reports.iter().any(answered) {
            Finding::None
        } else {
            Finding::Unknown
        }
    }
}

/// In one line: the file systems, the sources that know them, and the blind sources.
impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome() {
            Finding::Found => {
                let names: Vec<String> = self
                    .learned()
                    .into_iter()
                    .map(|(name, by)| {
                        let by: Vec<_> = by.iter().map(|(source, _)| source.as_str()).collect();
                        format!("{name} ({})", by.join(", "))
                    })
                    .collect();
                write!(f, "GFS2: {}", names.join(", "))?;
            }
            Finding::None => f.write_str("no GFS2 file system found")?,
            Finding::Unknown => f.write_str("GFS2 file systems unknown")?,
        }
        for (source, report) in &self.reports {
            let source = source.as_str();
            match report {
                Report::Answered { remark: Some(remark), .. } => write!(f, "; {source}: {remark}")?,
                Report::Blind(why) => write!(f, "; {source} is blind: {why}")?,
                Report::Answered { remark: None, .. } | Report::Absent(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(names: &[&str]) -> Report {
        let held = names.iter().map(|name| Held { name: (*name).into(), how: "so".into() });
        Report::Answered { held: held.collect(), remark: None }
    }

    fn discovery(dlm: Report, cib: Report) -> Discovery {
        let nnf = Report::Absent("no kubectl".into());
        Discovery::new(vec![(Source::Dlm, dlm), (Source::Cib, cib), (Source::Nnf, nnf)])
    }

    #[test]
    fn a_file_system_that_two_sources_know_is_named_once_with_both() {
        let found = discovery(answered(&["home"]), answered(&["scratch", "home"]));

        assert_eq!(found.names(), ["home", "scratch"]);
        assert_eq!(found.learned()["home"].len(), 2);
        assert_eq!(found.outcome(), Finding::Found);
        assert_eq!(found.to_string(), "GFS2: home (dlm, cib), scratch (cib)");
    }

    #[test]
    fn nothing_found_is_said_only_when_a_source_answered() {
        let blind = || Report::Blind("killed".into());

        assert_eq!(discovery(answered(&[]), blind()).outcome(), Finding::None);
        assert_eq!(discovery(blind(), blind()).outcome(), Finding::Unknown);
        assert_eq!(
            discovery(blind(), answered(&[])).to_string(),
            "no GFS2 file system found; dlm is blind: killed"
        );
        assert_eq!(
            discovery(Report::Absent("no DLM".into()), blind()).to_string(),
            "GFS2 file systems unknown; cib is blind: killed"
        );
    }

    #[test]
    fn there_are_never_more_or_longer_names_than_a_request_can_hold() {
        let many: Vec<String> = (0..5000).map(|n| format!("{n:0>300}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();

        let names = discovery(answered(&many), answered(&many)).names();

        assert!(names.len() <= NAMES_MAX, "{}", names.len());
        assert!(names.iter().all(|name| name.len() <= NAME_BYTES_MAX));
    }
}

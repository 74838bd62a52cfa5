//! The watcher's logger: a bounded queue and one thread that writes.
//!
//! A journal or a terminal that no longer reads blocks this thread alone. Lines that do not fit
//! into the queue meanwhile are dropped and counted, and the count is logged.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Deserialize;

use crate::journal::Journal;
use crate::output::{stderr_is_journal, stderr_is_lost};
use crate::{Syslog, shown_line};

/// The most lines that wait for the writer.
const QUEUE_LINES_MAX: usize = 1024;

/// How long `log::logger().flush()` waits for a reader that may hang.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// Where the lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// The journal if systemd connects standard error with it, syslog if standard error is
    /// `/dev/null`, else standard error.
    Auto,
    /// Standard error, for people.
    Stderr,
    /// The local syslog; standard error if no syslog listens.
    Syslog,
    /// The journal, with the fields of a fence; without a journal standard error, with priorities
    /// (sd-daemon(3)).
    Journal,
}

/// Makes this program's `log` macros write to `target`. `log::logger().flush()` at the end waits,
/// for a bounded time, until all lines are written. Fails if a logger exists, or if no thread can
/// be started.
pub fn init(program: &'static str, target: LogTarget, level: LevelFilter) -> io::Result<()> {
    let queue = Arc::new(Queue::default());
    let writer = Arc::clone(&queue);
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        let mut sink = sink(program, target);
        writer.write_all(&mut sink)
    })?;
    log::set_boxed_logger(Box::new(Logger { queue })).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(())
}

type Sink = Box<dyn FnMut(Level, &str)>;

fn sink(program: &'static str, target: LogTarget) -> Sink {
    match target {
        LogTarget::Auto if stderr_is_journal() => sink(program, LogTarget::Journal),
        LogTarget::Auto if stderr_is_lost() => sink(program, LogTarget::Syslog),
        LogTarget::Syslog => match Syslog::connect(program) {
            Some(mut syslog) => Box::new(move |level, text| {
                syslog.send(level, text);
            }),
            None => sink(program, LogTarget::Stderr),
        },
        LogTarget::Journal => {
            let mut journal = Journal::connect(program);
            Box::new(move |level, text| {
                if !journal.as_mut().is_some_and(|journal| journal.send(level, text)) {
                    to_stderr(program, target, level, text);
                }
            })
        }
        LogTarget::Auto | LogTarget::Stderr => {
            Box::new(move |level, text| to_stderr(program, target, level, text))
        }
    }
}

fn to_stderr(program: &str, target: LogTarget, level: Level, text: &str) {
    let line = stderr_line(program, target, level, text);
    // Without standard error, the line is lost.
    let _ = io::stderr().write_all(line.as_bytes());
}

fn stderr_line(program: &str, target: LogTarget, level: Level, text: &str) -> String {
    let text = shown_line(text);
    if target == LogTarget::Journal {
        return format!("<{}>{text}\n", severity(level));
    }
    let word = match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info => "",
        Level::Debug => "debug: ",
        Level::Trace => "trace: ",
    };
    format!("{program}: {word}{text}\n")
}

/// The severity of syslog(3), which the journal uses as well.
pub(crate) fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

struct Logger {
    queue: Arc<Queue>,
}

impl Log for Logger {
    /// Not for libraries: at the level `trace`, an HTTP library logs all that it sends, with the
    /// password.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && metadata.target().starts_with("fence_")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.queue.put(record.level(), record.args().to_string());
        }
    }

    fn flush(&self) {
        self.queue.flush(FLUSH_TIME_MAX);
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<(Level, String)>,
    dropped: u64,
    writing: bool,
}

impl Queue {
    fn put(&self, level: Level, text: String) {
        let mut state = self.lock();
        if state.lines.len() < QUEUE_LINES_MAX {
            state.lines.push_back((level, text));
        } else {
            state.dropped += 1;
        }
        self.changed.notify_all();
    }

    fn flush(&self, time_max: Duration) {
        let busy = |state: &mut State| state.writing || !state.lines.is_empty();
        drop(self.changed.wait_timeout_while(self.lock(), time_max, busy));
    }

    fn write_all(&self, sink: &mut dyn FnMut(Level, &str)) -> ! {
        loop {
            let (lines, dropped) = self.take();
            for (level, text) in lines {
                sink(level, &text);
            }
            if dropped > 0 {
                sink(Level::Warn, &format!("{dropped} log lines were dropped: the log was stuck"));
            }
        }
    }

    /// Waits for lines, and takes all. The writer counts as busy until its next call.
    fn take(&self) -> (VecDeque<(Level, String)>, u64) {
        let mut state = self.lock();
        state.writing = false;
        self.changed.notify_all();
        while state.lines.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writing = true;
        (std::mem::take(&mut state.lines), std::mem::take(&mut state.dropped))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // After a panic elsewhere the queue is still whole: every change of it is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A queue whose writer passes its lines on and, for each, waits for a permit.
    fn writer() -> (Arc<Queue>, mpsc::Sender<()>, mpsc::Receiver<String>) {
        let queue = Arc::new(Queue::default());
        let (permit, permits) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        let inner = Arc::clone(&queue);
        thread::spawn(move || {
            inner.write_all(&mut |_, text| {
                written.send(text.to_owned()).ok();
                permits.recv().ok();
            })
        });
        (queue, permit, lines)
    }

    #[test]
    fn a_stuck_log_drops_lines_counts_them_and_never_holds_the_program() {
        let (queue, permit, lines) = writer();
        queue.put(Level::Info, "first".into());
        assert_eq!(lines.recv().unwrap(), "first");

        for number in 0..QUEUE_LINES_MAX + 7 {
            queue.put(Level::Info, number.to_string());
        }
        drop(permit);

        let rest: Vec<String> = lines.iter().take(QUEUE_LINES_MAX + 1).collect();
        assert_eq!(rest[QUEUE_LINES_MAX - 1], (QUEUE_LINES_MAX - 1).to_string());
        assert_eq!(rest[QUEUE_LINES_MAX], "7 log lines were dropped: the log was stuck");
    }

    #[test]
    fn flush_returns_only_when_all_lines_are_out() {
        let (queue, permit, lines) = writer();
        drop(permit);
        for number in 0..50 {
            queue.put(Level::Info, number.to_string());
        }

        queue.flush(Duration::from_mins(1));

        assert_eq!(lines.try_iter().count(), 50);
    }

    #[test]
    fn flush_gives_up_on_a_log_that_is_stuck() {
        let (queue, _permit, lines) = writer();
        queue.put(Level::Info, "stuck".into());
        lines.recv().unwrap();

        queue.flush(Duration::from_millis(1));

        assert!(queue.lock().writing);
    }

    #[test]
    fn what_libraries_say_is_not_logged() {
        log::set_max_level(LevelFilter::Trace);
        let logger = Logger { queue: Arc::new(Queue::default()) };
        for target in ["ureq_proto::util", "fence_watcher::daemon", "rustls", "fence_device"] {
            let arguments = format_args!("{target}");
            let record =
                Record::builder().level(Level::Error).target(target).args(arguments).build();
            logger.log(&record);
        }

        let (lines, _) = logger.queue.take();
        let texts: Vec<String> = lines.into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["fence_watcher::daemon", "fence_device"]);
    }

    #[test]
    fn a_line_shows_its_level_as_its_reader_expects_it() {
        let line = |target, level| stderr_line("fence-watcher", target, level, "a\nb");

        assert_eq!(line(LogTarget::Journal, Level::Error), "<3>a\\nb\n");
        assert_eq!(line(LogTarget::Journal, Level::Info), "<6>a\\nb\n");
        assert_eq!(line(LogTarget::Stderr, Level::Warn), "fence-watcher: warning: a\\nb\n");
        assert_eq!(line(LogTarget::Stderr, Level::Info), "fence-watcher: a\\nb\n");
    }
}

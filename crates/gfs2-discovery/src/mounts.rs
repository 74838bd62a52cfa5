//! The GFS2 file systems that this node itself has mounted: their directories and lock tables.
//!
//! `/proc/self/mountinfo` has the device of each mount point without touching it, and
//! `/sys/fs/gfs2/TABLE/id` has the device of each lock table. Together they give the kernel's name
//! of the file system at a directory of the CIB.

/// This node's own GFS2 mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts(pub Vec<Mount>);

/// A mounted GFS2 file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its mount point.
    pub directory: String,
    /// Its lock table: the cluster's name, a colon, the file system's name.
    pub table: String,
}

/// Any mount point, of GFS2 or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// The device's major and minor number.
    device: String,
    pub(crate) directory: String,
    /// The file system's type.
    pub(crate) kind: String,
}

/// All mount points of `mountinfo`.
pub(crate) fn points(mountinfo: &str) -> Vec<Point> {
    let point = |line: &str| {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (device, directory) = (fields.next()?.to_owned(), unescaped(fields.nth(1)?));
        Some(Point { device, directory, kind: system.split(' ').next()?.to_owned() })
    };
    mountinfo.lines().filter_map(point).collect()
}

impl Mounts {
    /// Adds that `directory` leads to the mount point `to`.
    pub(crate) fn add_link(&mut self, directory: &str, to: &str) {
        if let Some(table) = self.table_at(to).map(str::to_owned) {
            let directory = plain(directory).to_owned();
            self.0.push(Mount { directory, table });
        }
    }

    /// The mount points of `mountinfo` with their lock tables. `tables` has each lock table with
    /// its `id` (the device's major and minor number).
    pub fn new(mountinfo: &str, tables: &[(String, String)]) -> Self {
        let gfs2 = points(mountinfo).into_iter().filter(|point| point.kind == "gfs2");
        let mounts = gfs2.filter_map(|Point { device, directory, .. }| {
            let (table, _) = tables.iter().find(|(_, id)| id.trim() == device)?;
            Some(Mount { directory, table: table.clone() })
        });
        Mounts(mounts.collect())
    }

    /// The lock table of the file system at `directory`.
    pub(crate) fn table_at(&self, directory: &str) -> Option<&str> {
        let plain = plain(directory);
        // The last mount covers earlier ones.
        self.0.iter().rev().find(|mount| mount.directory == plain).map(|mount| mount.table.as_str())
    }
}

fn plain(directory: &str) -> &str {
    directory.trim_end_matches('/')
}

/// `text` with the kernel's escapes (`\040`) undone.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_has_the_lock_table_of_its_device() {
        let mountinfo = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            36 22 254:16 / /mnt/a\\040b rw,noatime shared:20 master:1 - gfs2 /dev/vdb rw,rgrplvb\n\
            37 22 254:32 /sub /mnt/x rw - gfs2 /dev/vdc rw\n\
            38 22 254:48 / /mnt/unknown rw - gfs2 /dev/vdd rw\nno mount\n - gfs2\n";
        let tables = [("c:a".to_owned(), "254:16\n".to_owned()), ("c:x".into(), "254:32\n".into())];

        let mounts = Mounts::new(mountinfo, &tables);

        assert_eq!(mounts.0.len(), 2);
        assert_eq!(mounts.table_at("/mnt/a b/"), Some("c:a"));
        assert_eq!(mounts.table_at("/mnt/x"), Some("c:x"));
        assert_eq!(mounts.table_at("/mnt/unknown"), None);
    }

    #[test]
    fn only_three_octal_digits_are_an_escape() {
        assert_eq!(unescaped(r"/a\011\134040\8\04"), "/a\t\\040\\8\\04");
    }
}

//! `disk.partition`: the table of an appliance's disk. Done when the table has these partitions, by name, size and, where it
//! says something, GUID. What lies in them is the business of the steps that follow.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Context, StepError};
use crate::host::{Command, HostExt};
use crate::plan::{Disk, Partition};

const SECTORS_PER_MEBIBYTE: u64 = 2048;

pub(super) fn done(context: &Context, disk: &Disk, partitions: &[Partition]) -> Result<bool, StepError> {
    if !context.is_live()? {
        return Ok(true);
    }
    let output = context.host.run(&Command::new("sfdisk").args(["--json", &disk.path]), &mut |_| {})?;
    if !output.success() {
        return Ok(false);
    }
    let table: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let found = table["partitiontable"]["partitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(found.len() == partitions.len()
        && found.iter().zip(partitions).all(|(found, wanted)| is_as_wanted(found, wanted)))
}

fn is_as_wanted(found: &Value, wanted: &Partition) -> bool {
    let same_id = |id: &String| found["uuid"].as_str().is_some_and(|found| found.eq_ignore_ascii_case(id));
    found["name"] == wanted.name.as_str()
        && (wanted.mebibytes == 0 || found["size"] == wanted.mebibytes * SECTORS_PER_MEBIBYTE)
        && wanted.id.as_ref().is_none_or(same_id)
}

pub(super) fn run(context: &Context, disk: &Disk, partitions: &[Partition]) -> Result<(), StepError> {
    super::target::release(context)?;
    context.must("wipefs", ["--all", "--quiet", &disk.path])?;
    let command = Command::new("sfdisk")
        .args(["--quiet", "--wipe", "always", "--wipe-partitions", "always", &disk.path])
        .stdin(script(partitions))
        .limit(context.limit());
    context.host.must(&command)?;
    context.must("udevadm", ["settle"])?;
    Ok(())
}

/// As sfdisk(8) reads it.
fn script(partitions: &[Partition]) -> String {
    partitions.iter().fold("label: gpt\n".to_owned(), |mut text, partition| {
        let size = if partition.mebibytes == 0 { "+".to_owned() } else { format!("{}MiB", partition.mebibytes) };
        let id = partition.id.as_ref().map(|id| format!(", uuid={id}")).unwrap_or_default();
        let _ = writeln!(text, "size={size}, type={}, name=\"{}\"{id}", partition.kind, partition.name);
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Partition, is_as_wanted, script};

    fn partition(mebibytes: u64, id: Option<&str>) -> Partition {
        Partition { name: "a".to_owned(), kind: "L".to_owned(), mebibytes, id: id.map(str::to_owned) }
    }

    #[test]
    fn the_script_is_what_sfdisk_reads() {
        let text = script(&[partition(16, Some("0011-22")), partition(0, None)]);
        assert_eq!(text, "label: gpt\nsize=16MiB, type=L, name=\"a\", uuid=0011-22\nsize=+, type=L, name=\"a\"\n");
    }

    #[test]
    fn a_partition_is_known_by_name_size_and_guid() {
        let found = json!({"name": "a", "size": 32768, "uuid": "AB-CD"});
        assert!(is_as_wanted(&found, &partition(16, Some("ab-cd"))));
        assert!(is_as_wanted(&found, &partition(0, None)));
        assert!(!is_as_wanted(&found, &partition(17, None)));
        assert!(!is_as_wanted(&found, &partition(16, Some("ab-ce"))));
        assert!(!is_as_wanted(&json!({"name": "b", "size": 32768}), &partition(16, None)));
    }
}

//! What the system tells of processes and of itself.

use std::fs;

use anyhow::Context;

/// How long a tick of the kernel's accounts of CPU time is.
const TICK_SECONDS: f64 = 0.01;

/// The CPU time of processes so far, in seconds, user and system.
pub(crate) fn cpu_of(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().map(|pid| Ok(stat(&pid.to_string(), 14)? + stat(&pid.to_string(), 15)?)).sum()
}

/// The CPU time of all child processes that have ended, in seconds.
pub(crate) fn cpu_of_ended_children() -> anyhow::Result<f64> {
    Ok(stat("self", 16)? + stat("self", 17)?)
}

/// A field of `/proc/PID/stat` that counts ticks, numbered as its manual page does, in seconds.
fn stat(pid: &str, field: usize) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The program's name may hold blanks and parentheses; what follows the last one is field 3.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().nth(field - 3).and_then(|field| field.parse::<f64>().ok());
    Ok(ticks.with_context(|| format!("{path} has no field {field}"))? * TICK_SECONDS)
}

/// The time for which the machine's processors were busy so far, summed, in seconds.
pub(crate) fn busy() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    Ok((ticks.iter().take(8).sum::<f64>() - idle) * TICK_SECONDS)
}

/// A size of `/proc/PID/status` in KiB, such as `VmRSS` or `VmHWM`, summed over processes.
pub(crate) fn memory_kib(pids: &[u32], what: &str) -> anyhow::Result<f64> {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| pid.to_string())?;
        let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
        let size = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        size.with_context(|| format!("/proc/{pid}/status has no {what}"))
    };
    pids.iter().map(of).sum()
}

/// How many files processes hold open.
pub(crate) fn open_files(pids: &[u32]) -> anyhow::Result<usize> {
    pids.iter().map(|pid| Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())).sum()
}

/// What the kernel still has to write to disks, in MiB.
pub(crate) fn unwritten_mib() -> anyhow::Result<f64> {
    Ok((meminfo_kib("Dirty")? + meminfo_kib("Writeback")?) as f64 / 1024.0)
}

/// An amount of memory of `/proc/meminfo`, in KiB.
pub(crate) fn meminfo_kib(name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.with_context(|| format!("/proc/meminfo has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let this = [std::process::id()];
        assert!(cpu_of(&this).unwrap() >= 0.0 && cpu_of_ended_children().unwrap() >= 0.0);
        assert!(busy().unwrap() > 0.0);
        assert!(memory_kib(&this, "VmRSS").unwrap() > 1000.0);
        assert!(open_files(&this).unwrap() >= 3);
    }
}

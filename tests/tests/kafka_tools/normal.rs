//! What a tool printed, without what no two runs have in common: ports, paths, ids, times, sizes, speeds.

use std::collections::BTreeMap;

use crate::tool_runner::Printed;

/// The names of one cluster's own things.
#[derive(Debug)]
pub(crate) struct Normal {
    /// What to replace, the longest first, and by what.
    names: Vec<(String, String)>,
}

impl Normal {
    pub(crate) fn new(names: BTreeMap<String, String>) -> Self {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self { names }
    }

    /// The exit code, what was printed, and what was complained of, the latter marked.
    pub(crate) fn lines(&self, tool: &str, printed: &Printed) -> Vec<String> {
        let mut lines = vec![format!("exit {}", printed.code)];
        let mut out: Vec<_> = printed.out.lines().map(|line| self.line(tool, line)).collect();
        match tool {
            "BrokerApiVersionsCommand" => out = in_order_of_brokers(out),
            // Told as the brokers answer.
            "DeleteRecordsCommand" => out.sort(),
            _ => {}
        }
        lines.append(&mut out);
        let complaints = printed.err.lines().filter(|line| !is_of_a_stack(line) && !line.trim().is_empty());
        lines.extend(complaints.map(|line| self.line(tool, &format!("! {line}"))));
        lines
    }

    fn line(&self, tool: &str, line: &str) -> String {
        let mut line = line.to_owned();
        for (name, shown) in &self.names {
            line = replace_whole(&line, name, shown);
        }
        line = mask_after(&line, "TopicId: ", "ID", |c| !c.is_whitespace());
        line = mask_after(&line, "CreateTime:", "TIME", |c| c.is_ascii_digit());
        line = mask_after(&line, "\"timestamp\":", "TIME", |c| c.is_ascii_digit());
        line = in_sync_in_order(&line);
        line = match tool {
            "FeatureCommand" => mask_after(&line, " Epoch: ", "N", |c| c.is_ascii_digit()),
            "LogDirsCommand" => mask_after(&line, "\"size\":", "N", |c| c.is_ascii_digit()),
            "MetadataQuorumCommand" => mask_numbers(&line),
            "VerifiableProducer" => mask_after(&line, "\"avg_throughput\":", "N", |c| c != ','),
            "ProducerPerformance" | "ConsumerPerformance" => mask_speeds(&line),
            "BrokerApiVersionsCommand" => line.trim_end_matches(',').to_owned(),
            _ => line,
        };
        one_blank(&line)
    }
}

/// A line that tells where in its own source a program was.
fn is_of_a_stack(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("at ") || (line.starts_with("... ") && line.ends_with(" more"))
}

/// Replaces a name where it is not a part of a longer word.
fn replace_whole(line: &str, name: &str, shown: &str) -> String {
    let is_inside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let mut replaced = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once(name) {
        let is_part = is_inside(before.chars().next_back()) || is_inside(after.chars().next());
        replaced += before;
        replaced += if is_part { name } else { shown };
        rest = after;
    }
    replaced + rest
}

/// Replaces what follows `key`, as far as it `is_of` it. Nothing and a bare 0 stay.
fn mask_after(line: &str, key: &str, mask: &str, is_of: impl Fn(char) -> bool) -> String {
    let mut masked = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once(key) {
        let end = after.find(|c| !is_of(c)).unwrap_or(after.len());
        let (value, after) = after.split_at(end);
        masked += before;
        masked += key;
        masked += if value.is_empty() || value == "0" { value } else { mask };
        rest = after;
    }
    masked + rest
}

/// Every number becomes `N`.
fn mask_numbers(line: &str) -> String {
    let mut masked = String::new();
    for c in line.chars() {
        match c {
            '0'..='9' if masked.ends_with('N') => {}
            '0'..='9' => masked.push('N'),
            c => masked.push(c),
        }
    }
    masked
}

/// Masks the numbers after the count of records, or all of a line of figures.
fn mask_speeds(line: &str) -> String {
    match line.split_once(',') {
        Some((count, speeds)) if count.ends_with(" records sent") => {
            format!("{count},{}", mask_numbers(speeds))
        }
        Some((first, _)) if first.starts_with(|c: char| c.is_ascii_digit()) => {
            // None is another thing than some.
            let fields = line
                .split(", ")
                .map(|field| if field == "0" { field.to_owned() } else { mask_numbers(field) });
            fields.collect::<Vec<_>>().join(", ")
        }
        _ => line.to_owned(),
    }
}

/// The replicas in sync are a set; their order tells how they came to be one.
fn in_sync_in_order(line: &str) -> String {
    let Some((before, after)) = line.split_once("Isr: ") else { return line.to_owned() };
    let end = after.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(after.len());
    let (replicas, after) = after.split_at(end);
    let mut replicas: Vec<_> = replicas.split(',').collect();
    replicas.sort_unstable();
    format!("{before}Isr: {}{after}", replicas.join(","))
}

/// Brokers are told in any order, each by a line that is not indented and lines that are.
fn in_order_of_brokers(lines: Vec<String>) -> Vec<String> {
    let mut brokers: Vec<Vec<String>> = Vec::new();
    for line in lines {
        match brokers.last_mut() {
            Some(broker) if line.starts_with('\t') || line == ")" => broker.push(line),
            _ => brokers.push(vec![line]),
        }
    }
    brokers.sort();
    brokers.concat()
}

/// Widths of columns depend on what is in them; no line ends with a blank.
fn one_blank(line: &str) -> String {
    let words: Vec<_> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let indent = if line.starts_with(' ') { " " } else { "" };
    format!("{indent}{}", words.join(" ").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(tool: &str, out: &str, err: &str) -> Vec<String> {
        let names = [("20001", "{client1}"), ("/a/b", "{data}")];
        let normal = Normal::new(names.map(|(name, shown)| (name.to_owned(), shown.to_owned())).into());
        normal.lines(tool, &Printed { code: 1, out: out.to_owned(), err: err.to_owned() })
    }

    #[test]
    fn what_no_two_runs_share_is_masked() {
        let found = lines("TopicCommand", "Topic: t\tTopicId: xY-z Isr: 3,1,2 :20001, 1200017 /a/b   c", "");
        assert_eq!(found, ["exit 1", "Topic: t\tTopicId: ID Isr: 1,2,3 :{client1}, 1200017 {data} c"]);
        let found = lines("LogDirsCommand", r#"{"size":12,"x":{"size":0}}"#, "");
        assert_eq!(found, ["exit 1", r#"{"size":N,"x":{"size":0}}"#]);
        assert_eq!(lines("GetOffsetShell", "t:0:12", ""), ["exit 1", "t:0:12"]);
        assert_eq!(
            lines("ProducerPerformance", "5 records sent, 1.25 MB", ""),
            ["exit 1", "5 records sent, N.N MB"]
        );
    }

    #[test]
    fn complaints_are_marked_and_stacks_left_out() {
        let found =
            lines("TopicCommand", "", "an Exception\n\tat a.b(C.java:1)\n\n\t... 3 more\nCaused by: it\n");
        assert_eq!(found, ["exit 1", "! an Exception", "! Caused by: it"]);
    }

    #[test]
    fn brokers_are_told_in_order() {
        let found = lines("BrokerApiVersionsCommand", "2 (\n\tx,\n)\n1 (\n\ty,\n\tz\n)\n", "");
        assert_eq!(found, ["exit 1", "1 (", "\ty", "\tz", ")", "2 (", "\tx", ")"]);
    }
}

//! The list of what the tools are asked to do.

const TEXT: &str = include_str!("steps.txt");

/// When a step that changes nothing has printed what it should.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Repeat {
    /// It changes something: it runs once.
    Once,
    /// When it prints what is expected.
    Read,
    /// When it prints what is expected, and at any rate this.
    Until(String),
}

/// One run of one tool.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) repeat: Repeat,
    /// Whether it needs a Java machine of its own: it waits for that to end.
    pub(crate) alone: bool,
    /// The tool's class, without the package of Kafka's tools.
    pub(crate) tool: String,
    pub(crate) arguments: Vec<String>,
    /// What the tool reads.
    pub(crate) input: String,
    /// The files that are made before it, by name.
    pub(crate) files: Vec<(String, String)>,
}

impl Step {
    /// The name of the class to run.
    pub(crate) fn class(&self) -> String {
        match self.tool.as_str() {
            "ConfigCommand" => "kafka.admin.ConfigCommand".to_owned(),
            "ConsoleConsumer" => "org.apache.kafka.tools.consumer.ConsoleConsumer".to_owned(),
            tool => format!("org.apache.kafka.tools.{tool}"),
        }
    }
}

/// All steps, in order.
#[derive(Debug)]
pub(crate) struct Script(Vec<Step>);

impl Script {
    pub(crate) fn read() -> Self {
        Self::parse(TEXT)
    }

    fn parse(text: &str) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        let mut files = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(file) = line.strip_prefix("@ ") {
                let (name, content) = file.split_once(' ').unwrap_or_else(|| panic!("no content: {line}"));
                files.push((name.to_owned(), format!("{content}\n")));
            } else if let Some(input) = line.strip_prefix('<') {
                let step = steps.last_mut().expect("a step before what it reads");
                step.input += input.strip_prefix(' ').unwrap_or_default();
                step.input.push('\n');
            } else {
                steps.push(parse_step(line, std::mem::take(&mut files)));
            }
        }
        Self(steps)
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|step| step.name.as_str()).collect()
    }
}

fn parse_step(line: &str, files: Vec<(String, String)>) -> Step {
    let mut words = words(line).into_iter().peekable();
    let mut step = Step {
        name: words.next().unwrap_or_default(),
        repeat: Repeat::Once,
        alone: false,
        tool: String::new(),
        arguments: Vec::new(),
        input: String::new(),
        files,
    };
    while !step.name.ends_with(':') && step.tool.is_empty() {
        let word = words.next().unwrap_or_else(|| panic!("no colon: {line}"));
        let (bare, is_last) = word.strip_suffix(':').map_or((word.as_str(), false), |bare| (bare, true));
        match bare {
            "reads" => step.repeat = Repeat::Read,
            "alone" => step.alone = true,
            "until" => {
                let text = words.next().unwrap_or_default();
                step.repeat = Repeat::Until(text.strip_suffix(':').unwrap_or(&text).to_owned());
                step.tool = words.next().unwrap_or_default();
            }
            other => panic!("what is {other} in {line}"),
        }
        if is_last {
            step.tool = words.next().unwrap_or_default();
        }
    }
    if let Some(name) = step.name.strip_suffix(':') {
        step.name = name.to_owned();
        step.tool = words.next().unwrap_or_default();
    }
    step.arguments = words.collect();
    step
}

/// The words of a line; single quotes hold blanks together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn a_script_is_read() {
    let script = Script::parse(
        "# nothing\none: A --b 'c d'\n< in\n<\n@ f x y\ntwo reads: B\nthree until 'e: f': C g\nfour alone: D\n",
    );
    assert_eq!(script.names(), ["one", "two", "three", "four"]);
    let [one, two, three, four] = script.steps() else { panic!("{script:?}") };
    assert_eq!((one.tool.as_str(), one.arguments.as_slice()), ("A", ["--b".into(), "c d".into()].as_slice()));
    assert_eq!((one.input.as_str(), &one.repeat, one.alone), ("in\n\n", &Repeat::Once, false));
    assert_eq!((two.tool.as_str(), &two.repeat), ("B", &Repeat::Read));
    assert_eq!(two.files, [("f".to_owned(), "x y\n".to_owned())]);
    assert_eq!((three.tool.as_str(), &three.repeat), ("C", &Repeat::Until("e: f".into())));
    assert_eq!(three.arguments, ["g"]);
    assert_eq!((four.tool.as_str(), four.alone), ("D", true));
}

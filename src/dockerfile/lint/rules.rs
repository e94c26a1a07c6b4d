//! The table of the rules. `docs/reference/checks.md` is generated from it.

/// A rule, with what its page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// BuildKit's name: `StageNameCasing`.
    pub name: &'static str,
    /// What is asked for, in one line.
    pub description: &'static str,
    /// Whether it is checked only when it is asked for.
    pub experimental: bool,
    /// Why.
    pub reason: &'static str,
    /// A Dockerfile that breaks this rule and no other.
    pub bad: &'static str,
    /// The same without a violation.
    pub good: &'static str,
}

impl Rule {
    /// Where the rule is explained.
    pub fn url(&self) -> String {
        let page = concat!(
            env!("CARGO_PKG_REPOSITORY"),
            "/blob/main/docs/reference/checks.md"
        );
        format!("{page}#{}", self.name.to_ascii_lowercase())
    }
}

/// The rule of this name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

/// All rules, in the order of BuildKit's list.
pub const RULES: &[Rule] = &[
    Rule {
        name: "StageNameCasing",
        description: "names of stages are in lower case",
        experimental: false,
        reason: "Names of stages are compared without regard to letter case; one spelling avoids wrong guesses.",
        bad: "FROM scratch AS Build\n",
        good: "FROM scratch AS build\n",
    },
    Rule {
        name: "FromAsCasing",
        description: "`AS` is in the letter case of `FROM`",
        experimental: false,
        reason: "One instruction in two letter cases is hard to read.",
        bad: "FROM scratch as build\n",
        good: "FROM scratch AS build\n",
    },
    Rule {
        name: "NoEmptyContinuation",
        description: "no empty line continues an instruction",
        experimental: false,
        reason: "An empty line after a backslash looks like the end of the instruction and isn't. A later version of the language makes it an error. Comments may stand there.",
        bad: "FROM scratch\nLABEL a=1 \\\n\n      b=2\n",
        good: "FROM scratch\nLABEL a=1 \\\n      # the second\n      b=2\n",
    },
    Rule {
        name: "ConsistentInstructionCasing",
        description: "all instructions are in one letter case",
        experimental: false,
        reason: "The case that most instructions have counts, upper case where there are as many of each.",
        bad: "FROM scratch\nLABEL a=1\nlabel b=2\n",
        good: "FROM scratch\nLABEL a=1\nLABEL b=2\n",
    },
    Rule {
        name: "DuplicateStageName",
        description: "each stage has a name of its own",
        experimental: false,
        reason: "`FROM` and `COPY --from` mean the later one of two stages with one name, which is rarely what was meant.",
        bad: "FROM scratch AS build\nFROM scratch AS build\n",
        good: "FROM scratch AS build\nFROM scratch AS test\n",
    },
    Rule {
        name: "ReservedStageName",
        description: "no stage is called `scratch` or `context`",
        experimental: false,
        reason: "These names mean the empty image and the build context.",
        bad: "FROM scratch AS context\n",
        good: "FROM scratch AS base\n",
    },
    Rule {
        name: "JSONArgsRecommended",
        description: "CMD and ENTRYPOINT are JSON arrays",
        experimental: false,
        reason: "A command in shell form runs below a shell, which doesn't pass signals on: `docker stop` waits and then kills. A stage with a SHELL instruction has chosen its shell; there the rule is silent.",
        bad: "FROM scratch\nCMD serve --port 80\n",
        good: "FROM scratch\nCMD [\"serve\", \"--port\", \"80\"]\n",
    },
    Rule {
        name: "MaintainerDeprecated",
        description: "MAINTAINER is deprecated; a label names the author",
        experimental: false,
        reason: "`LABEL org.opencontainers.image.authors` is seen by tools that read labels.",
        bad: "FROM scratch\nMAINTAINER joe@example.com\n",
        good: "FROM scratch\nLABEL org.opencontainers.image.authors=\"joe@example.com\"\n",
    },
    Rule {
        name: "UndefinedArgInFrom",
        description: "FROM uses only variables that an ARG before it declares",
        experimental: false,
        reason: "A variable that is not declared is empty. In FROM only the ARG instructions before the first FROM count.",
        bad: "FROM scratch${VARIANT}\n",
        good: "ARG VARIANT=\nFROM scratch${VARIANT}\n",
    },
    Rule {
        name: "WorkdirRelativePath",
        description: "the first WORKDIR of a stage is absolute",
        experimental: false,
        reason: "A relative one depends on the base image's working directory, which can change with the image.",
        bad: "FROM scratch\nWORKDIR app\n",
        good: "FROM scratch\nWORKDIR /app\n",
    },
    Rule {
        name: "UndefinedVar",
        description: "variables are defined before they are used",
        experimental: false,
        reason: "A variable that no ARG or ENV defines is empty. It may be misspelt, or need an ARG in this stage: an ARG before FROM counts only in FROM. `${NAME:-word}` counts as a use.",
        bad: "FROM scratch\nARG VERSION=1\nLABEL version=$VERSON\n",
        good: "FROM scratch\nARG VERSION=1\nLABEL version=$VERSION\n",
    },
    Rule {
        name: "MultipleInstructionsDisallowed",
        description: "CMD, ENTRYPOINT and HEALTHCHECK stand once in a stage",
        experimental: false,
        reason: "Only the last one counts; the place reported is that of the one without effect.",
        bad: "FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\n",
        good: "FROM scratch\nCMD [\"b\"]\n",
    },
    Rule {
        name: "LegacyKeyValueFormat",
        description: "ENV and LABEL have the form `name=value`",
        experimental: false,
        reason: "The old form `ENV name value` takes the rest of the line as the value, so it can't define two.",
        bad: "FROM scratch\nENV MODE release\n",
        good: "FROM scratch\nENV MODE=release\n",
    },
    Rule {
        name: "InvalidBaseImagePlatform",
        description: "a base image is for the platform that is built for",
        experimental: false,
        reason: "An image of one platform that was pushed under a plain tag is taken whatever platform is asked for; its programs don't run on the other. No example can show this without such an image.",
        bad: "",
        good: "",
    },
    Rule {
        name: "RedundantTargetPlatform",
        description: "`--platform=$TARGETPLATFORM` says nothing",
        experimental: false,
        reason: "It is what FROM means without `--platform`.",
        bad: "FROM --platform=$TARGETPLATFORM scratch\n",
        good: "FROM scratch\n",
    },
    Rule {
        name: "SecretsUsedInArgOrEnv",
        description: "no secret is given by ARG or ENV",
        experimental: false,
        reason: "Their values stay readable in the image's configuration and history. `RUN --mount=type=secret` leaves no trace. The name decides: a word between underscores that is `apikey`, `auth`, `credential`, `credentials`, `key`, `password`, `pword`, `passwd`, `secret` or `token`, and none that is `public`, `file` or `version`.",
        bad: "FROM scratch\nARG API_TOKEN\n",
        good: "FROM scratch\nARG API_TOKEN_FILE=/run/secrets/api_token\n",
    },
    Rule {
        name: "InvalidDefaultArgInFrom",
        description: "FROM names an image without any `--build-arg`",
        experimental: false,
        reason: "A build that works only with arguments fails for whoever doesn't know them. Give the ARG a default, or use `${NAME:-word}`.",
        bad: "ARG TAG\nFROM busybox:$TAG\n",
        good: "ARG TAG=latest\nFROM busybox:$TAG\n",
    },
    Rule {
        name: "FromPlatformFlagConstDisallowed",
        description: "`FROM --platform` uses a variable",
        experimental: false,
        reason: "A constant keeps the Dockerfile from being built for other platforms. Give `--platform` on the command line, or use `$BUILDPLATFORM`. A stage whose name has the system or the architecture in it is meant for one platform.",
        bad: "FROM --platform=linux/amd64 scratch AS build\n",
        good: "FROM --platform=linux/amd64 scratch AS build-amd64\n",
    },
    Rule {
        name: "CopyIgnoredFile",
        description: "what COPY and ADD name is not excluded by `.dockerignore`",
        experimental: false,
        reason: "Such a file is not in the context: the build fails, or a pattern finds nothing. An ignore file with exceptions (`!`) isn't checked. The example has `.dockerignore` with the line `*.log`.",
        bad: "FROM scratch\nCOPY build.log /\n",
        good: "FROM scratch\nCOPY build.txt /\n",
    },
    Rule {
        name: "InvalidDefinitionDescription",
        description: "a comment right before FROM or ARG has the form `# name description`",
        experimental: true,
        reason: "Such comments are what `--call outline` and `--call targets` show. An empty comment between makes it an ordinary comment.",
        bad: "# the base of everything\nFROM scratch AS base\n",
        good: "# base is where everything starts\nFROM scratch AS base\n",
    },
    Rule {
        name: "ExposeProtoCasing",
        description: "the protocol in EXPOSE is in lower case",
        experimental: false,
        reason: "The image's configuration has it in lower case.",
        bad: "FROM scratch\nEXPOSE 80/TCP\n",
        good: "FROM scratch\nEXPOSE 80/tcp\n",
    },
    Rule {
        name: "ExposeInvalidFormat",
        description: "EXPOSE has a port, no address and no port of the host",
        experimental: false,
        reason: "What a port is published as is decided by `docker run -p`. A later version of the language makes it an error.",
        bad: "FROM scratch\nEXPOSE 127.0.0.1:80:80\n",
        good: "FROM scratch\nEXPOSE 80\n",
    },
];

//! What helps against a problem, where the problem alone says it.

use super::{error::Problem, expand::ExpandError};

impl Problem {
    /// What may help, unless whoever found the problem knows better.
    pub(super) fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Empty | Self::NoStage => "a Dockerfile builds on something: `FROM image`",
            Self::BeforeFrom { .. } => "move it below `FROM image`",
            Self::DuplicateFlag { .. } => "leave only one of them",
            Self::FlagWithoutValue { flag, .. } => return Some(format!("write `{flag}=value`")),
            Self::Arguments { keyword, .. } | Self::WithoutValue { keyword } => {
                return example(keyword);
            }
            Self::EmptyName { .. } => "write `name=value` without a space before `=`",
            Self::NotStrings { .. } => "put each word in double quotes: `[\"sleep\", \"1\"]`",
            Self::FromWord { .. } => "write `FROM image AS name`",
            Self::HeredocDestination { .. } => "heredocs come first: `COPY <<EOF /file`",
            Self::Escape { .. } => "write `# escape=\\`` with one character, or take the line out",
            Self::DuplicateDirective { .. } => "leave only one of them",
            Self::OnBuildTrigger { .. } => "put it into the Dockerfiles that use the image",
            Self::SeveralTriggers => "give each an ONBUILD of its own",
            Self::Expand { cause, .. } => return expansion(cause),
            Self::Platform { .. } => "write it like `linux/amd64` or `linux/arm64`",
            Self::EmptyWord { .. } => "a variable in it is not set, or empty",
            Self::Mode { .. } => "write it like `755` or `u+x,go-w`",
            Self::Port { .. } => "write it like `80`, `8000-8010` or `53/udp`",
            Self::Signal { .. } => "write it like `SIGTERM` or `15`",
            Self::Circle { .. } => "one of them must do without the others",
            Self::CopyUrl { .. } => "ADD can",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// How an instruction is written.
fn example(keyword: &str) -> Option<String> {
    let text = match keyword {
        "FROM" => "FROM debian:12 AS build",
        "COPY" => "COPY source destination",
        "ADD" => "ADD source destination",
        "ARG" => "ARG VERSION=1",
        "ENV" => "ENV NAME=value",
        "LABEL" => "LABEL name=value",
        "WORKDIR" => "WORKDIR /app",
        "USER" => "USER app",
        "STOPSIGNAL" => "STOPSIGNAL SIGTERM",
        "MAINTAINER" => "LABEL org.opencontainers.image.authors=name",
        "RUN" => "RUN make install",
        "EXPOSE" => "EXPOSE 80",
        "VOLUME" => "VOLUME /data",
        "SHELL" => "SHELL [\"/bin/bash\", \"-c\"]",
        "ONBUILD" => "ONBUILD RUN make",
        "HEALTHCHECK" => "HEALTHCHECK --interval=30s CMD curl -f http://localhost/",
        _ => return None,
    };
    Some(format!("for instance `{text}`"))
}

fn expansion(cause: &ExpandError) -> Option<String> {
    let text = match cause {
        ExpandError::OpenQuote { quote } => {
            return Some(format!("close it, or write `\\{quote}` for the character"));
        }
        ExpandError::OpenBrace | ExpandError::NoName => "write `\\$` for a dollar sign",
        ExpandError::NoSlash => "write `${name/pattern/}` to remove what matches",
        ExpandError::Modifier { .. } => {
            "there are `${x:-y}`, `${x:+y}`, `${x:?y}`, `${x#p}`, `${x%p}` and `${x/p/y}`, \
             with `-`, `+`, `?`, `##`, `%%` and `//`"
        }
        ExpandError::Required { name, .. } => {
            return Some(format!("give it with `--build-arg {name}=value`"));
        }
        ExpandError::Pattern { .. } => "write a backslash as two",
        ExpandError::TooDeep
        | ExpandError::TooLong
        | ExpandError::TooMuch
        | ExpandError::TooLongTogether => return None,
    };
    Some(text.to_owned())
}

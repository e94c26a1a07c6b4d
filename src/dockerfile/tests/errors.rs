//! Faulty Dockerfiles with the whole message that users see.

use crate::dockerfile::parse;

/// One faulty Dockerfile each.
const FAULTY: &[&str] = &[
    "",
    "# only a comment\n\n",
    "ARG A=1\n",
    "RUN x\nFROM scratch\n",
    "FROM\n",
    "FROM a AS\n",
    "FROM a b c\n",
    "FROM a AS b c\n",
    "FROM a AS 1st\n",
    "FROM --platfrom=linux/amd64 a\n",
    "FROM --platform a\n",
    "FROM scratch\nRUNN make\n",
    "FROM scratch\nCPOY a b\n",
    "FROM scratch\nENTRYPONIT x\n",
    "FROM scratch\napt-get install x\n",
    "FROM scratch\nRUN []\n",
    "FROM scratch\nRUN [\"a\", 1]\n",
    "FROM scratch\nRUN --mont=type=cache x\n",
    "FROM scratch\nRUN --mount=type=cahce,target=/a x\n",
    "FROM scratch\nRUN --mount=type=cache,tagret=/a x\n",
    "FROM scratch\nRUN --mount=type=secret x\n",
    "FROM scratch\nRUN --mount=type=secret,id=a,source=b x\n",
    "FROM scratch\nRUN --mount=type=secret,id=a,env= x\n",
    "FROM scratch\nRUN --mount=type=secret,id=a,from=b x\n",
    "FROM scratch\nRUN --mount=type=ssh,source=a x\n",
    "FROM scratch\nRUN --device=v.example/a=b,requird x\n",
    "FROM scratch\nRUN --device= x\n",
    "FROM scratch\nRUN --mount=type=bind,target=/a,sharing=locked x\n",
    "FROM scratch\nRUN --mount=type=cache,target=/a,sharing=some x\n",
    "FROM scratch\nRUN --mount=type=bind,target x\n",
    "FROM scratch\nRUN --mount=type=tmpfs,target=/a,size=big x\n",
    "FROM scratch\nRUN --mount=type=cache,target=/a,mode=999 x\n",
    "FROM scratch\nRUN --mount=type=bind,from=$A,target=/a x\n",
    "FROM scratch\nRUN --network=some x\n",
    "FROM scratch\nRUN --network=host --network=none x\n",
    "FROM scratch\nRUN --security=loose x\n",
    "FROM scratch\nRUN <<EOF\nnever\nends\n",
    "FROM scratch\nCOPY a\n",
    "FROM scratch\nCOPY [\"a\"]\n",
    "FROM scratch\nCOPY --form=x a b\n",
    "FROM scratch\nCOPY --link= a b\n",
    "FROM scratch\nCOPY --from=$A a b\n",
    "FROM scratch\nCOPY --link=maybe a b\n",
    "FROM scratch\nCOPY a <<EOF\nx\nEOF\n",
    "FROM scratch\nADD --parents a b\n",
    "FROM scratch\nENV\n",
    "FROM scratch\nENV A\n",
    "FROM scratch\nENV A=1 B C=2\n",
    "FROM scratch\nENV =1\n",
    "FROM scratch\nARG\n",
    "FROM scratch\nARG =1\n",
    "FROM scratch\nLABEL a=b c\n",
    "FROM scratch\nWORKDIR\n",
    "FROM scratch\nUSER --root\n",
    "FROM scratch\nEXPOSE\n",
    "FROM scratch\nVOLUME [\"\"]\n",
    "FROM scratch\nSHELL /bin/sh\n",
    "FROM scratch\nSHELL []\n",
    "FROM scratch\nHEALTHCHECK\n",
    "FROM scratch\nHEALTHCHECK NONE x\n",
    "FROM scratch\nHEALTHCHECK CMD\n",
    "FROM scratch\nHEALTHCHECK curl x\n",
    "FROM scratch\nHEALTHCHECK --interval=1 CMD x\n",
    "FROM scratch\nHEALTHCHECK --interval=1us CMD x\n",
    "FROM scratch\nHEALTHCHECK --retries=-1 CMD x\n",
    "FROM scratch\nONBUILD\n",
    "FROM scratch\nONBUILD ONBUILD RUN x\n",
    "FROM scratch\nONBUILD FROM x\n",
    "FROM scratch\nONBUILD RUNN x\n",
    "# syntax=example.com/frontend\nFROM scratch\n",
    "# escape=x\nFROM scratch\n",
    "# escape=`\n# escape=`\nFROM scratch\n",
    "FROM scratch\n\nRUN a && \\\n    b && \\\n    c\n\nCOPPY --from=x \\\n  a b\n",
    "FROM scratch\nCOPY --chown=a \\\n  --chmdo=1 \\\n  a b\n",
];

#[test]
fn messages() {
    let mut out = String::new();
    for text in FAULTY {
        let message = match parse("Dockerfile", text) {
            Ok(_) => format!("ACCEPTED\n{text}"),
            Err(error) => error.render(),
        };
        out.push_str(&message);
        out.push('\n');
    }
    insta::assert_snapshot!(out);
}

#[test]
fn long_instructions_are_shortened_and_control_characters_shown_as_such() {
    let body = (1..30)
        .map(|n| format!("  line{n} \\\n"))
        .collect::<String>();
    let text = format!("FROM scratch\nRUN --netwrok=none \x1b[2J {body}  end\n");
    insta::assert_snapshot!(parse("docker/Dockerfile", &text).unwrap_err().render());
}

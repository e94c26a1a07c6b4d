//! The environment variables by which CI platforms describe the build, which [`crate::ci`] reads.

use super::variables::{Variable, variable};

/// A variable by which a CI platform describes the build.
const fn platform(name: &'static str, meaning: &'static str) -> Variable {
    variable(name, meaning, "not on this platform")
}

/// A variable that is set where a CI platform runs that the program knows nothing else of.
const fn elsewhere(name: &'static str, meaning: &'static str) -> Variable {
    variable(name, meaning, "not on this platform")
}

/// The variables of the second kind.
pub const ELSEWHERE: &[&str] = &[
    "APPVEYOR",
    "BITRISE_IO",
    "BUDDY_WORKSPACE_ID",
    "BUILD_BUILDURI",
    "CF_BUILD_ID",
    "CF_PAGES",
    "CI_NAME",
    "CIRRUS_CI",
    "DISTELLI_APPNAME",
    "JB_SPACE_EXECUTION_NUMBER",
    "NETLIFY",
    "NOW_GITHUB_DEPLOYMENT",
    "SAILCI",
    "SCREWDRIVER",
    "SCRUTINIZER",
    "SEMAPHORE",
    "SHIPPABLE",
    "TEAMCITY_VERSION",
    "TRAVIS",
    "VELA",
    "VERCEL",
    "WERCKER_MAIN_PIPELINE_STARTED",
    "bamboo_agentId",
];

/// All of them, by platform.
pub(super) const PLATFORMS: &[Variable] = &[
    platform(
        "GITHUB_ACTIONS",
        "the build is a job of GitHub Actions, or of Gitea or Forgejo Actions",
    ),
    platform("GITEA_ACTIONS", "the build is a job of Gitea Actions"),
    platform("FORGEJO_ACTIONS", "the build is a job of Forgejo Actions"),
    platform(
        "GITHUB_REPOSITORY",
        "the repository, for statements in the cache",
    ),
    platform("GITHUB_REF", "the Git ref, for the trust scope"),
    platform(
        "GITHUB_REF_PROTECTED",
        "whether that ref is protected, on GitHub alone",
    ),
    platform("GITHUB_EVENT_NAME", "the event, for the trust scope"),
    platform(
        "GITHUB_EVENT_PATH",
        "file that describes the event: pull request, base branch, fork",
    ),
    platform("GITHUB_BASE_REF", "the base branch of a pull request"),
    platform("GITHUB_SHA", "the commit that is built"),
    platform(
        "GITHUB_HEAD_REF",
        "the branch that a pull request comes from",
    ),
    platform("GITHUB_SERVER_URL", "first part of the address of the run"),
    platform("GITHUB_RUN_ID", "number of the run"),
    platform("GITHUB_RUN_ATTEMPT", "which attempt of the run it is"),
    platform("GITLAB_CI", "the build is a job of GitLab"),
    platform(
        "CI_PROJECT_PATH",
        "the repository, for statements in the cache",
    ),
    platform("CI_PROJECT_ID", "number of the project the job runs in"),
    platform("CI_PIPELINE_SOURCE", "the event, for the trust scope"),
    platform("CI_PIPELINE_URL", "address of the run; Woodpecker's too"),
    platform("CI_COMMIT_REF_NAME", "branch or tag, for the trust scope"),
    platform(
        "CI_COMMIT_TAG",
        "the tag, where one is built; Woodpecker's too",
    ),
    platform(
        "CI_COMMIT_REF_PROTECTED",
        "whether branch or tag is protected",
    ),
    platform("CI_MERGE_REQUEST_IID", "number of the merge request"),
    platform(
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME",
        "the base branch of a merge request",
    ),
    platform(
        "CI_MERGE_REQUEST_PROJECT_ID",
        "number of the project that a merge request goes to",
    ),
    platform(
        "CI_MERGE_REQUEST_SOURCE_PROJECT_ID",
        "number of the project that a merge request comes from: whether it is a fork",
    ),
    platform(
        "CI_EXTERNAL_PULL_REQUEST_IID",
        "number of a pull request of a mirrored repository",
    ),
    platform(
        "CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_NAME",
        "its base branch",
    ),
    platform(
        "CI_EXTERNAL_PULL_REQUEST_SOURCE_REPOSITORY",
        "where it comes from",
    ),
    platform(
        "CI_EXTERNAL_PULL_REQUEST_TARGET_REPOSITORY",
        "where it goes to",
    ),
    platform(
        "CI_COMMIT_SHA",
        "the commit that is built; Woodpecker's too",
    ),
    platform("CI_COMMIT_MESSAGE", "its message; Woodpecker's too"),
    platform(
        "CI_COMMIT_BEFORE_SHA",
        "what the branch was before the push",
    ),
    platform("CI_DEFAULT_BRANCH", "the default branch"),
    platform(
        "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME",
        "the branch that a merge request comes from",
    ),
    platform(
        "CI_MERGE_REQUEST_EVENT_TYPE",
        "whether a merge request is built as it is, merged, or in a merge train",
    ),
    platform(
        "CI_MERGE_REQUEST_DIFF_BASE_SHA",
        "where a merge request left its base branch",
    ),
    platform(
        "CI_MERGE_REQUEST_SOURCE_BRANCH_SHA",
        "what was merged, in a pipeline of a merged result",
    ),
    platform(
        "CI_MERGE_REQUEST_TARGET_BRANCH_SHA",
        "what it was merged into",
    ),
    platform("CI_MERGE_REQUEST_LABELS", "labels of a merge request"),
    platform(
        "CI_EXTERNAL_PULL_REQUEST_SOURCE_BRANCH_NAME",
        "the branch that a pull request of a mirrored repository comes from",
    ),
    platform(
        "CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_SHA",
        "the tip of its base branch",
    ),
    platform(
        "CI_PIPELINE_EVENT",
        "Woodpecker's event, for the trust scope",
    ),
    platform("CI_REPO", "Woodpecker's repository"),
    platform("CI_REPO_DEFAULT_BRANCH", "its default branch"),
    platform("CI_COMMIT_REF", "the Git ref that Woodpecker builds"),
    platform(
        "CI_COMMIT_BRANCH",
        "the branch that Woodpecker builds, or that the pull request is for",
    ),
    platform(
        "CI_COMMIT_SOURCE_BRANCH",
        "the branch that a pull request comes from, on Woodpecker",
    ),
    platform(
        "CI_COMMIT_TARGET_BRANCH",
        "the base branch of a pull request, on Woodpecker",
    ),
    platform(
        "CI_COMMIT_PULL_REQUEST",
        "number of a pull request, on Woodpecker",
    ),
    platform("CI_COMMIT_PULL_REQUEST_LABELS", "its labels"),
    platform("CI_PREV_PIPELINE_EVENT", "the event before, on Woodpecker"),
    platform("CI_PREV_COMMIT_SHA", "the commit that was built then"),
    platform("DRONE", "the build is a step of Drone"),
    platform("DRONE_BUILD_EVENT", "the event, for the trust scope"),
    platform("DRONE_REPO", "the repository"),
    platform("DRONE_REPO_BRANCH", "its default branch"),
    platform("DRONE_COMMIT_SHA", "the commit that is built"),
    platform("DRONE_COMMIT_REF", "the Git ref, for the trust scope"),
    platform("DRONE_COMMIT_BEFORE", "what the branch was before the push"),
    platform("DRONE_COMMIT_MESSAGE", "message of the commit"),
    platform("DRONE_BRANCH", "the branch, where no ref is given"),
    platform("DRONE_TAG", "the tag, where no ref is given"),
    platform("DRONE_PULL_REQUEST", "number of a pull request"),
    platform("DRONE_SOURCE_BRANCH", "the branch that it comes from"),
    platform("DRONE_TARGET_BRANCH", "its base branch"),
    platform("DRONE_BUILD_LINK", "address of the run"),
    platform("TF_BUILD", "the build is a job of Azure Pipelines"),
    platform("BUILD_REASON", "the event, for the trust scope"),
    platform("BUILD_REPOSITORY_NAME", "the repository"),
    platform("BUILD_SOURCEBRANCH", "the Git ref, for the trust scope"),
    platform("BUILD_SOURCEVERSION", "the commit that is built"),
    platform("BUILD_SOURCEVERSIONMESSAGE", "its message"),
    platform("BUILD_BUILDID", "number of the run"),
    platform(
        "SYSTEM_COLLECTIONURI",
        "first part of the address of the run",
    ),
    platform(
        "SYSTEM_TEAMPROJECT",
        "second part of the address of the run",
    ),
    platform(
        "SYSTEM_PULLREQUEST_PULLREQUESTID",
        "number of a pull request",
    ),
    platform(
        "SYSTEM_PULLREQUEST_PULLREQUESTNUMBER",
        "the number that GitHub gave it",
    ),
    platform("SYSTEM_PULLREQUEST_ISFORK", "whether it comes from a fork"),
    platform(
        "SYSTEM_PULLREQUEST_SOURCEBRANCH",
        "the branch that it comes from",
    ),
    platform(
        "SYSTEM_PULLREQUEST_SOURCECOMMITID",
        "the tip of that branch",
    ),
    platform("SYSTEM_PULLREQUEST_TARGETBRANCH", "its base branch"),
    platform("BUILDKITE", "the build is a job of Buildkite"),
    platform("BUILDKITE_SOURCE", "the event, for the trust scope"),
    platform("BUILDKITE_REPO", "address of the repository"),
    platform("BUILDKITE_PIPELINE_DEFAULT_BRANCH", "its default branch"),
    platform("BUILDKITE_COMMIT", "the commit that is built, or `HEAD`"),
    platform("BUILDKITE_BRANCH", "the branch, for the trust scope"),
    platform("BUILDKITE_TAG", "the tag, where one is built"),
    platform("BUILDKITE_MESSAGE", "message of the commit"),
    platform(
        "BUILDKITE_PULL_REQUEST",
        "number of a pull request, or `false`",
    ),
    platform("BUILDKITE_PULL_REQUEST_BASE_BRANCH", "its base branch"),
    platform(
        "BUILDKITE_PULL_REQUEST_REPO",
        "address of the repository that it comes from: whether it is a fork",
    ),
    platform("BUILDKITE_PULL_REQUEST_LABELS", "its labels"),
    platform("BUILDKITE_BUILD_URL", "address of the run"),
    platform("CIRCLECI", "the build is a job of CircleCI"),
    platform("CIRCLE_SHA1", "the commit that is built"),
    platform("CIRCLE_BRANCH", "the branch"),
    platform("CIRCLE_TAG", "the tag, where one is built"),
    platform(
        "CIRCLE_PULL_REQUEST",
        "address of the branch's pull request",
    ),
    platform("CIRCLE_PR_NUMBER", "number of a pull request from a fork"),
    platform(
        "CIRCLE_PROJECT_USERNAME",
        "first part of the repository's name",
    ),
    platform(
        "CIRCLE_PROJECT_REPONAME",
        "second part of the repository's name",
    ),
    platform("CIRCLE_BUILD_URL", "address of the run"),
    platform(
        "PIPELINE_GIT_BASE_REVISION",
        "CircleCI's `pipeline.git.base_revision`, which a job must set itself: the commit that was built before",
    ),
    platform(
        "CODEBUILD_BUILD_ID",
        "the build is one of AWS CodeBuild; the number of the run",
    ),
    platform("CODEBUILD_WEBHOOK_EVENT", "the event, for the trust scope"),
    platform(
        "CODEBUILD_WEBHOOK_TRIGGER",
        "branch, tag or pull request, for the trust scope",
    ),
    platform(
        "CODEBUILD_WEBHOOK_BASE_REF",
        "the base branch of a pull request",
    ),
    platform(
        "CODEBUILD_WEBHOOK_HEAD_REF",
        "the branch that a pull request comes from",
    ),
    platform(
        "CODEBUILD_WEBHOOK_PREV_COMMIT",
        "what the branch was before the push",
    ),
    platform(
        "CODEBUILD_RESOLVED_SOURCE_VERSION",
        "the commit that is built",
    ),
    platform(
        "CODEBUILD_SOURCE_VERSION",
        "what was asked to be built: whether it is a pull request",
    ),
    platform("CODEBUILD_SOURCE_REPO_URL", "address of the repository"),
    platform("JENKINS_URL", "the build is one of Jenkins"),
    platform("BUILD_URL", "address of the run, on Jenkins"),
    platform("GIT_COMMIT", "the commit that Jenkins builds"),
    platform("GIT_URL", "address of the repository that Jenkins builds"),
    platform("GIT_BRANCH", "the branch that Jenkins fetched"),
    platform("GIT_LOCAL_BRANCH", "its name in the work tree"),
    platform(
        "GIT_PREVIOUS_SUCCESSFUL_COMMIT",
        "the commit of the last build of Jenkins that succeeded",
    ),
    platform(
        "GIT_PREVIOUS_COMMIT",
        "the commit of the last build of Jenkins",
    ),
    platform(
        "BRANCH_NAME",
        "the branch of a multibranch project of Jenkins, or of a step of Cloud Build",
    ),
    platform("TAG_NAME", "the tag that Jenkins or Cloud Build builds"),
    platform("CHANGE_ID", "number of a pull request, on Jenkins"),
    platform("CHANGE_TARGET", "its base branch"),
    platform("CHANGE_BRANCH", "the branch that it comes from"),
    platform("CHANGE_FORK", "the fork that it comes from"),
    platform(
        "ghprbPullId",
        "number of a pull request, by Jenkins' plugin for GitHub",
    ),
    platform("ghprbTargetBranch", "its base branch"),
    platform("ghprbSourceBranch", "the branch that it comes from"),
    platform(
        "gitlabMergeRequestIid",
        "number of a merge request, by Jenkins' plugin for GitLab",
    ),
    platform("gitlabMergeRequestId", "the same, of older versions"),
    platform("gitlabTargetBranch", "its base branch"),
    platform("gitlabSourceBranch", "the branch that it comes from"),
    platform(
        "GERRIT_CHANGE_NUMBER",
        "number of a change, by Jenkins' plugin for Gerrit",
    ),
    platform("GERRIT_BRANCH", "its base branch"),
    platform("GERRIT_TOPIC", "its topic"),
    platform(
        "BITBUCKET_BUILD_NUMBER",
        "the build is a step of Bitbucket Pipelines; the number of the run",
    ),
    platform("BITBUCKET_REPO_FULL_NAME", "the repository"),
    platform("BITBUCKET_COMMIT", "the commit that is built"),
    platform("BITBUCKET_BRANCH", "the branch, for the trust scope"),
    platform("BITBUCKET_TAG", "the tag, where one is built"),
    platform("BITBUCKET_PR_ID", "number of a pull request"),
    platform("BITBUCKET_PR_DESTINATION_BRANCH", "its base branch"),
    platform("BITBUCKET_PR_DESTINATION_COMMIT", "the tip of that branch"),
    platform(
        "GOOGLE_CLOUD_BUILD",
        "`true`: the build is a step of Google Cloud Build, which must set this and the next ones itself",
    ),
    platform("COMMIT_SHA", "the commit that Cloud Build builds"),
    platform("REVISION_ID", "the same, where the other isn't set"),
    platform("REPO_FULL_NAME", "the repository that Cloud Build builds"),
    platform("REPO_NAME", "the same, without its owner"),
    platform("BUILD_ID", "number of the run, on Cloud Build"),
    platform("_PR_NUMBER", "number of a pull request, on Cloud Build"),
    platform("_BASE_BRANCH", "its base branch"),
    platform("_HEAD_BRANCH", "the branch that it comes from"),
    elsewhere(
        "APPVEYOR",
        "AppVeyor runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "BITRISE_IO",
        "Bitrise runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "BUDDY_WORKSPACE_ID",
        "Buddy runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "BUILD_BUILDURI",
        "Team Foundation Server runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "CF_BUILD_ID",
        "Codefresh runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "CF_PAGES",
        "Cloudflare Pages runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "CI_NAME",
        "Codeship runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "CIRRUS_CI",
        "Cirrus CI runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "DISTELLI_APPNAME",
        "Puppet Pipelines runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "JB_SPACE_EXECUTION_NUMBER",
        "JetBrains Space runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "NETLIFY",
        "Netlify runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "NOW_GITHUB_DEPLOYMENT",
        "an older Vercel runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "SAILCI",
        "Sail CI runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "SCREWDRIVER",
        "Screwdriver runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "SCRUTINIZER",
        "Scrutinizer runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "SEMAPHORE",
        "Semaphore runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "SHIPPABLE",
        "Shippable runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "TEAMCITY_VERSION",
        "TeamCity runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "TRAVIS",
        "Travis CI runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "VELA",
        "Vela runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "VERCEL",
        "Vercel runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "WERCKER_MAIN_PIPELINE_STARTED",
        "Wercker runs the build, a platform that the program knows nothing else of",
    ),
    elsewhere(
        "bamboo_agentId",
        "Bamboo runs the build, a platform that the program knows nothing else of",
    ),
];

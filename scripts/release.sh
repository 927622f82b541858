#!/usr/bin/env bash
# Makes a release: checks what is to be released, builds and packs the binaries, pushes the image, publishes on GitHub.
# .github/workflows/release.yml calls it on a tag. `build` also runs on macOS, whose bash is version 3.2.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"

usage() {
    cat <<'END'
Usage: scripts/release.sh [--dry-run] COMMAND

Commands, in the order in which a release runs them:
  check [TAG]                check that all files name the same version; with TAG (vX.Y.Z), also that the changelog has
                             a section for it, that TAG is the commit that is checked out, and that origin/main has it
  build PLATFORM             build the binary of the commit that is checked out: for linux-amd64 and linux-arm64 in the
                             Dockerfile's build stage (Docker), for macos-arm64 with cargo on such a machine
  archive PLATFORM [BINARY]  pack the binary into prop-PLATFORM.tar.gz, and write SHA256SUMS for all archives
  verify                     check the archives against SHA256SUMS, and that each holds what it must
  image                      build the image for amd64 and arm64 from the binaries, push it, and print its digest
  notes [VERSION]            print the changelog's section for VERSION, or for the version in Cargo.toml
  publish TAG                create the GitHub release with notes and archives

Options:
  --dry-run  print what build, image and publish would run, and change nothing

Binaries and archives are in target/dist, or in DIST. The image goes to ghcr.io/prop-ledger/prop, or to RELEASE_IMAGE.
A Linux binary may require glibc 2.34 at most, or GLIBC_MAX.
`image` logs in to the registry when GITHUB_TOKEN and GITHUB_ACTOR are set; `publish` runs gh, which reads GH_TOKEN and
GH_REPO.

Prerequisites: git, jq; GNU tar and readelf to pack; Docker with buildx to build for Linux and for images; gh to publish.

Exit codes: 0 done, 1 failed, 2 wrong argument, 3 a tool is missing, 4 the tree has uncommitted changes, 5 version, tag or
changelog disagree, 6 this version has been released already.
END
}
readonly EXIT_DIRTY=4 EXIT_MISMATCH=5 EXIT_RELEASED=6
readonly PLATFORMS="linux-amd64 linux-arm64 macos-arm64"
# The archives run on systems with this glibc or a later one: RHEL 9, Amazon Linux 2023, Ubuntu 22.04, Debian 12.
: "${GLIBC_MAX:=2.34}"
: "${DIST:=$ROOT/target/dist}"
: "${RELEASE_IMAGE:=ghcr.io/prop-ledger/prop}"

# version: the one in Cargo.toml.
version() { sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1; }

check_platform() {
    [[ " $PLATFORMS " == *" $1 "* ]] || usage_error "'$1' is not a platform; expected one of: $PLATFORMS."
}

# mismatch SENTENCE: version, tag and changelog must agree, and do not.
mismatch() { die "$EXIT_MISMATCH" "$*"; }

check_clean() {
    [ -z "$(git status --porcelain)" ] || die "$EXIT_DIRTY" "The tree has uncommitted changes. Commit or remove them first."
}

# check [TAG]
check() {
    local tag=${1:-} version name found
    require_tools git jq
    check_clean
    version=$(version)
    [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || mismatch "Cargo.toml has the version '$version', which is not X.Y.Z."
    for name in Cargo.lock docs/openapi.json; do
        case $name in
            Cargo.lock) found=$(sed -n '/^name = "prop"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock) ;;
            *) found=$(jq -r .info.version "$name") ;;
        esac
        [ "$found" = "$version" ] || mismatch "$name has version $found, but Cargo.toml has $version."
    done
    grep -q '^## \[Unreleased\]$' CHANGELOG.md || mismatch "CHANGELOG.md has no section '## [Unreleased]'."
    if [ -n "$tag" ]; then
        check_tag "$tag" "$version"
        success "$tag can be released"
    else
        ! git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null ||
            mismatch "v$version is released. Set the version of the next release in Cargo.toml."
        success "the next release is $version"
    fi
}

# check_tag TAG VERSION
check_tag() {
    local tag=$1 version=$2
    [ "$tag" = "v$version" ] || mismatch "The tag is $tag, but Cargo.toml has version $version: the tag must be v$version."
    grep -Eq "^## \[${version//./\\.}\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md ||
        mismatch "CHANGELOG.md has no section '## [$version] - YYYY-MM-DD'."
    grep -q "^\[${version//./\\.}\]: https://" CHANGELOG.md || mismatch "CHANGELOG.md does not define the link [$version] at its end."
    notes "$version" >/dev/null
    [ "$(git rev-parse --quiet --verify "$tag^{commit}")" = "$(git rev-parse HEAD)" ] ||
        mismatch "The tag $tag is missing here, or is not the commit that is checked out."
    git merge-base --is-ancestor HEAD origin/main 2>/dev/null || mismatch "origin/main does not have the commit of $tag. Release from main."
}

# notes VERSION: the section's text, without its heading and the links at the end of the file.
notes() {
    local text
    text=$(awk -v heading="## [$1]" '
        index($0, "## [") == 1 { inside = index($0, heading) == 1; next }
        /^\[[^]]+\]: / { inside = 0 }
        inside' CHANGELOG.md)
    # Command substitution has removed the blank lines at the end.
    text=$(sed '/./,$!d' <<<"$text")
    [ -n "$text" ] || mismatch "CHANGELOG.md has nothing under '## [$1]'."
    printf '%s\n' "$text"
}

# build PLATFORM: leaves the binary in DIST/PLATFORM.
build() {
    local platform=$1 sha
    check_platform "$platform"
    check_clean
    sha=$(git rev-parse HEAD)
    if [[ $platform == linux-* ]]; then
        require_tools docker
        run_or_print docker buildx build --file docker/Dockerfile --target binary --platform "${platform/-//}" \
            --build-arg BUILD_GIT_SHA="$sha" --output "$DIST/$platform" . >&2
    else
        require_tools cargo
        run_or_print env BUILD_GIT_SHA="$sha" CARGO_TARGET_DIR="$ROOT/target" cargo build --locked --release >&2
        run_or_print mkdir -p "$DIST/$platform"
        run_or_print cp target/release/prop "$DIST/$platform/prop"
    fi
    [ "$DRY_RUN" = yes ] || check_version "$DIST/$platform/prop" "$(version) ($sha)"
}

# check_version BINARY TEXT: runs it; what it prints must begin with this.
check_version() {
    local printed
    printed=$("$1" --version) || die "$1 does not run here."
    [[ $printed == "prop $2"* ]] || mismatch "$1 is '$printed', but 'prop $2' is to be released."
}

# is_native PLATFORM: whether its binaries run on this machine.
is_native() {
    case $(uname -sm) in
        'Linux x86_64') [ "$1" = linux-amd64 ] ;;
        'Linux aarch64') [ "$1" = linux-arm64 ] ;;
        'Darwin arm64') [ "$1" = macos-arm64 ] ;;
        *) false ;;
    esac
}

# check_elf PLATFORM BINARY: the right processor, and no later glibc than promised.
check_elf() {
    local machine glibc
    case $1 in
        linux-amd64) machine=X86-64 ;;
        linux-arm64) machine=AArch64 ;;
    esac
    require_tools readelf
    readelf --file-header "$2" 2>/dev/null | grep -q "Machine:.*$machine" || die "$2 is not a binary for $1."
    glibc=$(readelf --version-info --wide "$2" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
    glibc=${glibc#GLIBC_}
    [ "$(printf '%s\n' "$glibc" "$GLIBC_MAX" | sort -V | tail -n 1)" = "$GLIBC_MAX" ] ||
        die "$2 requires glibc $glibc, but releases must run with $GLIBC_MAX. Build it on an older system."
    detail "$1 requires glibc $glibc or later"
}

# archive PLATFORM [BINARY]: the same files give the same archive, to the byte.
archive() {
    local platform=$1 binary=${2:-$DIST/$1/prop} name=prop-$1
    check_platform "$platform"
    [ -f "$binary" ] || die "There is no binary $binary. Run: scripts/release.sh build $platform"
    [[ $platform != linux-* ]] || check_elf "$platform" "$binary"
    mkdir -p "$DIST" "$WORK/$name"
    install -m 755 "$binary" "$WORK/$name/prop"
    install -m 644 LICENSE README.md prop.toml.example "$WORK/$name"
    ! is_native "$platform" || check_version "$WORK/$name/prop" "$(version) "
    tar --create --directory "$WORK" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" \
        "$name" | gzip --no-name >"$DIST/$name.tar.gz"
    (cd "$DIST" && sha256sum prop-*.tar.gz >SHA256SUMS)
    success "$DIST/$name.tar.gz"
}

# verify: every archive is listed, unchanged and whole.
verify() {
    local archive name
    [ -f "$DIST/SHA256SUMS" ] || die "There is no $DIST/SHA256SUMS."
    (cd "$DIST" && sha256sum --check --strict --quiet SHA256SUMS >&2) || die "An archive differs from SHA256SUMS."
    for archive in "$DIST"/prop-*.tar.gz; do
        name=$(basename "$archive" .tar.gz)
        grep -q "  $name.tar.gz$" "$DIST/SHA256SUMS" || die "SHA256SUMS does not list $name.tar.gz."
        [ "$(tar --list --file "$archive" | LC_ALL=C sort | paste -sd ' ')" = "$name/ $name/LICENSE $name/README.md $name/prop $name/prop.toml.example" ] ||
            die "$archive does not hold exactly prop, LICENSE, README.md and prop.toml.example."
    done
    success "$(wc -l <"$DIST/SHA256SUMS") archives match SHA256SUMS"
}

# is_newest VERSION: whether it is stable, and no tag names a later stable one.
is_newest() {
    [[ $1 != *-* ]] || return 1
    [ "$({ echo "v$1" && git tag --list 'v*'; } | grep -v -e - | sort -V | tail -n 1)" = "v$1" ]
}

# image: one per processor, from the binaries of the archives; the version's tag names both.
image() {
    local version architecture built context tags=() parts=()
    require_tools docker jq git
    version=$(version)
    for architecture in amd64 arm64; do
        [ -f "$DIST/linux-$architecture/prop" ] || die "There is no binary $DIST/linux-$architecture/prop. Run: scripts/release.sh build linux-$architecture"
    done
    log_in
    if docker buildx imagetools inspect "$RELEASE_IMAGE:$version" >/dev/null 2>&1; then
        success "the registry has $RELEASE_IMAGE:$version already"
    else
        for architecture in amd64 arm64; do
            context=$WORK/$architecture
            mkdir -p "$context/src/target/release" "$context/data"
            install -m 755 "$DIST/linux-$architecture/prop" "$context/src/target/release/prop"
            built=$(run_or_print scripts/build.sh --no-push --platform "linux/$architecture" -- --build-context "build=$context")
            run_or_print docker tag "${built:-(what was built)}" "$RELEASE_IMAGE:$version-$architecture"
            run_or_print docker push --quiet "$RELEASE_IMAGE:$version-$architecture" >&2
            parts+=("$RELEASE_IMAGE:$version-$architecture")
        done
        tags=(--tag "$RELEASE_IMAGE:$version")
        [[ $version == *-* ]] || tags+=(--tag "$RELEASE_IMAGE:${version%.*}")
        ! is_newest "$version" || tags+=(--tag "$RELEASE_IMAGE:latest")
        run_or_print docker buildx imagetools create "${tags[@]}" "${parts[@]}" >&2
        [ "$DRY_RUN" = no ] || return 0
    fi
    docker buildx imagetools inspect "$RELEASE_IMAGE:$version" --format '{{json .Manifest}}' | jq --exit-status --raw-output .digest
}

log_in() {
    [ -n "${GITHUB_TOKEN:-}" ] && [ -n "${GITHUB_ACTOR:-}" ] || return 0
    run_or_print docker login "${RELEASE_IMAGE%%/*}" --username "$GITHUB_ACTOR" --password-stdin <<<"$GITHUB_TOKEN" >&2
}

# publish TAG
publish() {
    local tag=$1 version options=()
    version=$(version)
    [ "$tag" = "v$version" ] || mismatch "The tag is $tag, but Cargo.toml has version $version: the tag must be v$version."
    require_tools gh git
    verify
    notes "$version" >"$WORK/notes.md"
    ! gh release view "$tag" >/dev/null 2>&1 || die "$EXIT_RELEASED" "GitHub has a release $tag already. Delete it there, or release a new version."
    if [[ $version == *-* ]]; then
        options=(--prerelease --latest=false)
    elif is_newest "$version"; then
        options=(--latest)
    else
        options=(--latest=false)
    fi
    run_or_print gh release create "$tag" --verify-tag --title "prop $version" --notes-file "$WORK/notes.md" "${options[@]}" \
        "$DIST"/prop-*.tar.gz "$DIST/SHA256SUMS"
}

# arguments COUNT [MORE] ARGUMENT...: at least COUNT, at most MORE of them.
arguments() {
    local least=$1 most=$2
    shift 2
    [ $# -ge "$least" ] || usage_error "$command requires an argument."
    [ $# -le "$most" ] || usage_error "Unexpected argument '${!#}'."
}

while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --dry-run) DRY_RUN=yes ;;
        -*) usage_error "Unexpected option '$1'." ;;
        *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || usage_error "A command is missing."
command=$1
shift
cd "$ROOT"
case $command in
    check) arguments 0 1 "$@" ;;
    build | publish) arguments 1 1 "$@" ;;
    archive) arguments 1 2 "$@" ;;
    verify | image) arguments 0 0 "$@" ;;
    notes)
        arguments 0 1 "$@"
        [ $# -gt 0 ] || set -- "$(version)"
        ;;
    *) usage_error "Unknown command '$command'; expected check, build, archive, verify, image, notes or publish." ;;
esac
"$command" "$@"

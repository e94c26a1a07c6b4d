// Command oracle says what BuildKit's Dockerfile frontend makes of Dockerfiles, without
// running anything: one line of JSON for each file named, with the error, or the image's
// configuration and the processes of the target.
//
// Every base image is taken for one with PATH and a shell. `tests/e2e/language.py` compares
// this with what memobuild-ci makes of the same files.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

const baseConfig = `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
"config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["/bin/sh"]}}`

// images resolves every reference to the same configuration.
type images struct{}

func (images) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return ref, digest.NewDigestFromBytes(digest.SHA256, sum(ref)), []byte(baseConfig), nil
}

func sum(text string) []byte {
	hash := sha256.Sum256([]byte(text))
	return hash[:]
}

type process struct {
	Args   []string `json:"args"`
	Env    []string `json:"env"`
	Cwd    string   `json:"cwd"`
	User   string   `json:"user"`
	Alone  bool     `json:"alone"`
	Mounts []string `json:"mounts"`
}

type answer struct {
	Name      string    `json:"name"`
	Error     string    `json:"error,omitempty"`
	Config    any       `json:"config,omitempty"`
	Processes []process `json:"processes,omitempty"`
}

func main() {
	out := json.NewEncoder(os.Stdout)
	for _, path := range os.Args[1:] {
		text, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		found, err := convert(text)
		if err != nil {
			found = answer{Error: err.Error()}
		}
		found.Name = filepath.Base(path)
		if err := out.Encode(found); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func convert(text []byte) (found answer, err error) {
	defer func() {
		if crash := recover(); crash != nil {
			err = fmt.Errorf("crash: %v", crash)
		}
	}()
	ctx := context.Background()
	platform := ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	caps := pb.Caps.CapSet(pb.Caps.All())
	result, err := dockerfile2llb.Dockerfile2LLB(ctx, text, dockerfile2llb.ConvertOpt{
		Config: dockerui.Config{
			BuildArgs:       map[string]string{},
			BuildPlatforms:  []ocispecs.Platform{platform},
			TargetPlatforms: []ocispecs.Platform{platform},
		},
		TargetPlatform: &platform,
		MetaResolver:   images{},
		LLBCaps:        &caps,
		SourceMap:      llb.NewSourceMap(nil, "Dockerfile", "", text),
	})
	if err != nil {
		return found, err
	}
	definition, err := result.State.Marshal(ctx, llb.Platform(platform))
	if err != nil {
		return found, err
	}
	for _, bytes := range definition.Def {
		var op pb.Op
		if err := op.UnmarshalVT(bytes); err != nil {
			return found, err
		}
		if exec := op.GetExec(); exec != nil {
			found.Processes = append(found.Processes, describe(exec))
		}
	}
	found.Config = result.Image.Config
	return found, nil
}

func describe(exec *pb.ExecOp) process {
	out := process{
		Args:  exec.Meta.Args,
		Env:   exec.Meta.Env,
		Cwd:   exec.Meta.Cwd,
		User:  exec.Meta.User,
		Alone: exec.Network == pb.NetMode_NONE,
	}
	for _, mount := range exec.Mounts {
		if mount.Dest != "/" {
			kind := map[pb.MountType]string{
				pb.MountType_BIND: "bind", pb.MountType_CACHE: "cache", pb.MountType_TMPFS: "tmpfs",
				pb.MountType_SECRET: "secret", pb.MountType_SSH: "ssh",
			}[mount.MountType]
			// The executor takes a relative target from the working directory.
			dest := mount.Dest
			if !filepath.IsAbs(dest) {
				dest = filepath.Join("/", exec.Meta.Cwd, dest)
			}
			out.Mounts = append(out.Mounts, kind+" "+filepath.Clean(dest))
		}
	}
	for _, secret := range exec.Secretenv {
		out.Mounts = append(out.Mounts, "variable "+secret.Name)
	}
	sort.Strings(out.Env)
	sort.Strings(out.Mounts)
	return out
}

// What a container runtime makes of CDI files: reads a folder with the library that containerd and
// CRI-O use, injects the devices that are named, and prints as JSON what came of it.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

type outcome struct {
	Errors  map[string]string `json:"errors"`
	Devices []string          `json:"devices"`
	Nodes   []string          `json:"nodes"`
	Mounts  []string          `json:"mounts"`
	Hooks   [][]string        `json:"hooks"`
	Env     []string          `json:"env"`
}

func main() {
	found, err := read(os.Args[1], os.Args[2:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(found)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(folder string, names []string) (*outcome, error) {
	cache, err := cdi.NewCache(cdi.WithSpecDirs(folder), cdi.WithAutoRefresh(false))
	if err != nil {
		return nil, err
	}
	found := &outcome{Errors: map[string]string{}, Devices: cache.ListDevices()}
	for path, faults := range cache.GetErrors() {
		found.Errors[path] = fmt.Sprint(faults)
	}
	container := &oci.Spec{Process: &oci.Process{}, Linux: &oci.Linux{}}
	if _, err := cache.InjectDevices(container, names...); err != nil {
		return nil, err
	}
	for _, node := range container.Linux.Devices {
		found.Nodes = append(found.Nodes, node.Path)
	}
	for _, mount := range container.Mounts {
		found.Mounts = append(found.Mounts, mount.Destination)
	}
	if container.Hooks != nil {
		for _, hook := range container.Hooks.CreateContainer {
			found.Hooks = append(found.Hooks, hook.Args)
		}
	}
	found.Env = container.Process.Env
	return found, nil
}

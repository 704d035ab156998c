// Command reference times the reference allocator's best-effort policy, and says what it chose.
//
// It reads one machine and a list of requests as JSON from standard input, and writes an answer to
// each of them to standard output. Links are given by the allocator's own numbers (1 SYS, 2 NODE,
// 3 PHB, 4 PXB, 5 PIX, 6 same board, 6+n for n NVLinks), so that nothing of NVML is needed.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"time"

	"github.com/NVIDIA/go-gpuallocator/gpuallocator"
)

type machine struct {
	GPUs     int       `json:"gpus"`
	Links    []link    `json:"links"`
	Requests []request `json:"requests"`
	// Each request is asked Rounds times, but not longer than Seconds in all.
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"`
}

type link struct {
	One   int      `json:"one"`
	Other int      `json:"other"`
	Types []uint64 `json:"types"`
}

type request struct {
	Available []int `json:"available"`
	Size      int   `json:"size"`
}

type answer struct {
	GPUs        []int   `json:"gpus"`
	Nanoseconds []int64 `json:"nanoseconds"`
	Crash       string  `json:"crash,omitempty"`
}

func main() {
	var given machine
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		fmt.Fprintln(os.Stderr, "standard input:", err)
		os.Exit(2)
	}
	devices := build(given)
	policy := gpuallocator.NewBestEffortPolicy()
	answers := make([]answer, 0, len(given.Requests))
	for _, asked := range given.Requests {
		answers = append(answers, ask(policy, devices, asked, given.Rounds, given.Seconds))
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		fmt.Fprintln(os.Stderr, "standard output:", err)
		os.Exit(1)
	}
}

func build(given machine) gpuallocator.DeviceList {
	devices := make(gpuallocator.DeviceList, given.GPUs)
	for i := range devices {
		devices[i] = &gpuallocator.Device{Index: i, Links: map[int][]gpuallocator.P2PLink{}}
		devices[i].UUID = fmt.Sprintf("GPU-%d", i)
	}
	for _, one := range given.Links {
		for _, kind := range one.Types {
			connect(devices, one.One, one.Other, kind)
			connect(devices, one.Other, one.One, kind)
		}
	}
	return devices
}

// connect adds a link. The type of its kind is internal to the allocator, so it is set by reflection.
func connect(devices gpuallocator.DeviceList, from, to int, kind uint64) {
	added := gpuallocator.P2PLink{GPU: devices[to]}
	reflect.ValueOf(&added.Type).Elem().SetUint(kind)
	devices[from].Links[to] = append(devices[from].Links[to], added)
}

func ask(
	policy gpuallocator.Policy, devices gpuallocator.DeviceList, asked request, rounds int, seconds float64,
) (told answer) {
	// A padded set makes the policy answer with devices that are none; what follows then is a crash.
	defer func() {
		if fault := recover(); fault != nil {
			told.Crash = fmt.Sprint(fault)
		}
	}()
	available := make([]*gpuallocator.Device, len(asked.Available))
	for i, index := range asked.Available {
		available[i] = devices[index]
	}
	begun := time.Now()
	var chosen []*gpuallocator.Device
	for round := 0; round < rounds; round++ {
		before := time.Now()
		chosen = policy.Allocate(available, nil, asked.Size)
		told.Nanoseconds = append(told.Nanoseconds, time.Since(before).Nanoseconds())
		if time.Since(begun).Seconds() > seconds {
			break
		}
	}
	for _, device := range chosen {
		told.GPUs = append(told.GPUs, device.Index)
	}
	sort.Ints(told.GPUs)
	return told
}

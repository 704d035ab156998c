// What the containers of the cases run: one static program for two images.
//
// As `environment` it prints its environment, sorted, and a last line that says it is all; then it
// rests until it is told to end. As `pause` it only rests: a pod's sandbox runs it.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
)

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	if filepath.Base(os.Args[0]) == "environment" {
		lines := os.Environ()
		sort.Strings(lines)
		fmt.Println(strings.Join(lines, "\n"))
		fmt.Println("-- all --")
	}
	<-ended
}

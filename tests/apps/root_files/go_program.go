// Goroutines, channels, timers, files, a child process and a garbage collector under load; prints what must be equal
// on every kernel.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

func work(id int, jobs <-chan int, out chan<- int, wg *sync.WaitGroup) {
	defer wg.Done()
	for n := range jobs {
		sum := 0
		for i := 0; i < 1000; i++ {
			sum += (n*i + id - id) % 7
		}
		out <- sum
	}
}

func main() {
	jobs := make(chan int, 64)
	out := make(chan int, 64)
	var wg sync.WaitGroup
	for i := 0; i < 16; i++ {
		wg.Add(1)
		go work(i, jobs, out, &wg)
	}
	total := 0
	done := make(chan bool)
	go func() {
		for v := range out {
			total += v
		}
		done <- true
	}()
	for n := 0; n < 2000; n++ {
		jobs <- n
	}
	close(jobs)
	wg.Wait()
	close(out)
	<-done
	fmt.Println("total", total)

	garbage := 0
	for i := 0; i < 200; i++ {
		b := make([]byte, 1<<20)
		garbage += len(b)
	}
	runtime.GC()
	fmt.Println("allocated", garbage)

	dir, err := os.MkdirTemp("", "go")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for i := 0; i < 100; i++ {
		name := filepath.Join(dir, fmt.Sprintf("f%03d", i))
		if err := os.WriteFile(name, bytes.Repeat([]byte{byte(i)}, i*100), 0o644); err != nil {
			panic(err)
		}
	}
	entries, _ := os.ReadDir(dir)
	hash := sha256.New()
	for _, e := range entries {
		data, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		hash.Write(data)
	}
	fmt.Printf("files %d %x\n", len(entries), hash.Sum(nil)[:8])

	start := time.Now()
	select {
	case <-time.After(20 * time.Millisecond):
	}
	fmt.Println("slept", time.Since(start) >= 20*time.Millisecond)

	text, err := exec.Command("/bin/echo", "from a child").Output()
	fmt.Printf("%s%v\n", text, err)
}

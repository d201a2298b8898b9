// hello is the sample workload: it shows that what an install promises is true for a pod.
//
// It serves HTTPS with the site's certificate, and answers with what it was given: its pod and node (so it was scheduled),
// the fingerprint of a generated pack secret (so the secret exists and was mounted; never the secret itself), and the
// server name that the client asked for (so the FQDN reaches it). Its health is bad while the secret or the certificate
// cannot be read. It runs from scratch, as a user without rights, on a read-only root.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// answer is what GET / gives.
type answer struct {
	Message string `json:"message"`
	Pod     string `json:"pod"`
	Node    string `json:"node"`
	// The first 16 hex digits of the SHA-256 over the secret's bytes as mounted.
	SecretFingerprint string `json:"secretFingerprint"`
	// The name in the client's TLS greeting (SNI, RFC 6066); empty when it gave none.
	TLSServerName string `json:"tlsServerName"`
}

type server struct {
	tlsDirectory string
	secretFile   string
}

// certificate reads the pair anew for each handshake, so that a renewed one is served without a restart.
func (s server) certificate() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.tlsDirectory, "tls.crt"), filepath.Join(s.tlsDirectory, "tls.key"))
	return &pair, err
}

func (s server) secretFingerprint() (string, error) {
	secret, err := os.ReadFile(s.secretFile)
	if err != nil {
		return "", err
	}
	if len(secret) == 0 {
		return "", errors.New(s.secretFile + " is empty")
	}
	digest := sha256.Sum256(secret)
	return hex.EncodeToString(digest[:8]), nil
}

func (s server) root(response http.ResponseWriter, request *http.Request) {
	if request.URL.Path != "/" {
		http.NotFound(response, request)
		return
	}
	fingerprint, err := s.secretFingerprint()
	if err != nil {
		http.Error(response, err.Error(), http.StatusServiceUnavailable)
		return
	}
	response.Header().Set("Content-Type", "application/json")
	json.NewEncoder(response).Encode(answer{
		Message:           os.Getenv("HELLO_MESSAGE"),
		Pod:               os.Getenv("POD_NAME"),
		Node:              os.Getenv("NODE_NAME"),
		SecretFingerprint: fingerprint,
		TLSServerName:     request.TLS.ServerName,
	})
}

func (s server) health(response http.ResponseWriter, _ *http.Request) {
	if _, err := s.secretFingerprint(); err != nil {
		http.Error(response, err.Error(), http.StatusServiceUnavailable)
		return
	}
	response.Write([]byte("ok\n"))
}

func main() {
	listen := flag.String("listen", ":8443", "address to serve HTTPS on")
	tlsDirectory := flag.String("tls", "/tls", "folder with tls.crt and tls.key")
	secretFile := flag.String("secret", "/secrets/root-key", "file whose fingerprint is shown")
	flag.Parse()

	s := server{tlsDirectory: *tlsDirectory, secretFile: *secretFile}
	if _, err := s.certificate(); err != nil {
		log.Fatal(err)
	}
	routes := http.NewServeMux()
	routes.HandleFunc("/", s.root)
	routes.HandleFunc("/healthz", s.health)
	web := &http.Server{
		Addr:              *listen,
		Handler:           routes,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate() },
		},
	}

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		<-stop.Done()
		limit, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		web.Shutdown(limit)
		close(stopped)
	}()
	log.Printf("serving https on %s", *listen)
	if err := web.ListenAndServeTLS("", ""); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-stopped
}

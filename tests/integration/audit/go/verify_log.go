// Verify a log from its tiles, its checkpoint and a proof, with the libraries of Go's checksum database only:
// signed notes by sumdb/note, hashes and proofs by sumdb/tlog.
//
//	verify_log FOLDER VERIFIER_KEY [PROOF_FILE]
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// folder reads tiles of height 8. The paths of C2SP tlog-tiles lack the height.
type folder string

func (f folder) Height() int { return 8 }

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var contents [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		content, err := os.ReadFile(filepath.Join(string(f), path))
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
	}
	return contents, nil
}

func (f folder) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

func openCheckpoint(text []byte, key string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("not a checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	hash, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: hash}, err
}

// verifyTiles authenticates every leaf hash, and proves every 97th leaf from the tiles.
func verifyTiles(prefix folder, tree tlog.Tree) error {
	reader := tlog.TileHashReader(tree, prefix)
	var indexes []int64
	for n := int64(0); n < tree.N; n++ {
		indexes = append(indexes, tlog.StoredHashIndex(0, n))
	}
	hashes, err := reader.ReadHashes(indexes)
	if err != nil {
		return err
	}
	for n := int64(0); n < tree.N; n += 97 {
		proof, err := tlog.ProveRecord(tree.N, n, reader)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, n, hashes[n]); err != nil {
			return err
		}
	}
	return nil
}

func verifyProof(prefix folder, tiles tlog.Tree, path, key string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var bundle struct {
		Event      map[string]any
		LeafIndex  int64 `json:"leaf_index"`
		Proof      []string
		Checkpoint string
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&bundle); err != nil {
		return err
	}
	tree, err := openCheckpoint([]byte(bundle.Checkpoint), key)
	if err != nil {
		return err
	}
	// Members are sorted, and the fields of an event need no other rule of RFC 8785.
	var canonical bytes.Buffer
	encoder := json.NewEncoder(&canonical)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(bundle.Event); err != nil {
		return err
	}
	leaf := tlog.RecordHash(bytes.TrimSuffix(canonical.Bytes(), []byte("\n")))
	var proof tlog.RecordProof
	for _, encoded := range bundle.Proof {
		hash, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(hash) != tlog.HashSize {
			return fmt.Errorf("not a hash")
		}
		proof = append(proof, tlog.Hash(hash))
	}
	if err := tlog.CheckRecord(proof, tree.N, tree.Hash, bundle.LeafIndex, leaf); err != nil {
		return err
	}
	// The same leaf is in the tiles.
	hashes, err := tlog.TileHashReader(tiles, prefix).ReadHashes([]int64{tlog.StoredHashIndex(0, bundle.LeafIndex)})
	if err == nil && hashes[0] != leaf {
		err = fmt.Errorf("the tiles have another leaf")
	}
	return err
}

func run(arguments []string) error {
	prefix, key := folder(arguments[0]), arguments[1]
	text, err := os.ReadFile(filepath.Join(arguments[0], "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := openCheckpoint(text, key)
	if err != nil {
		return err
	}
	if err := verifyTiles(prefix, tree); err != nil {
		return err
	}
	for _, path := range arguments[2:] {
		if err := verifyProof(prefix, tree, path, key); err != nil {
			return err
		}
	}
	fmt.Printf("%d leaves verified\n", tree.N)
	return nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

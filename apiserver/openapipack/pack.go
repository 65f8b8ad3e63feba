// Package openapipack owns the form in which the OpenAPI documents are embedded: frames of Zstandard (RFC 8878). Much of what each of them
// says one of them says too, the base, so the others are compressed with it as their dictionary. They take a third of what they take each
// on its own.
package openapipack

import "github.com/klauspost/compress/zstd"

const (
	// Base is the name of the base: that of the core group.
	Base = "api__v1.json"
	// Suffix is that of the files.
	Suffix = ".zst"

	dictionary = 1
	// maxDocument bounds a document, in bytes.
	maxDocument = 16 << 20
)

// Pack compresses a document with a base. The base itself has none: nil.
func Pack(document, base []byte) ([]byte, error) {
	options := []zstd.EOption{zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8 << 20)}
	if base != nil {
		options = append(options, zstd.WithEncoderDictRaw(dictionary, base))
	}
	encoder, err := zstd.NewWriter(nil, options...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = encoder.Close() }()
	return encoder.EncodeAll(document, nil), nil
}

// Unpack is the inverse of Pack.
func Unpack(data, base []byte) ([]byte, error) {
	options := []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxDocument)}
	if base != nil {
		options = append(options, zstd.WithDecoderDictRaw(dictionary, base))
	}
	decoder, err := zstd.NewReader(nil, options...)
	if err != nil {
		return nil, err
	}
	defer decoder.Close()
	return decoder.DecodeAll(data, nil)
}

// Package linkpb owns the wire form of the link, generated from transport/link.proto (`make generate`, or go generate here).
package linkpb

//go:generate sh -c "cd ../../tools && go build -o ../bin/tools/ tool"
//go:generate protoc -I .. --plugin=../../bin/tools/protoc-gen-go --plugin=../../bin/tools/protoc-gen-go-grpc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative link.proto

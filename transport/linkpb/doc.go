// Package linkpb owns the wire form of the link, generated from transport/link.proto.
package linkpb

//go:generate sh -c "cd ../../tools && go build -o ../bin/tools/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc"
//go:generate protoc -I .. --plugin=../../bin/tools/protoc-gen-go --plugin=../../bin/tools/protoc-gen-go-grpc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative link.proto

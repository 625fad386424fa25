module example.com/iad/mib/gen

go 1.26

require github.com/golangsnmp/gomib v0.7.0

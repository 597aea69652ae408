import CAneForge

guard CommandLine.arguments.count > 1, let model = aneforge_open(CommandLine.arguments[1], nil) else {
    fatalError(String(cString: aneforge_last_error()))
}
defer { aneforge_close(model) }
var dims = [Int](repeating: 0, count: 5)
let rank = Int(aneforge_input_shape(model, 0, &dims, 5))
let values = [Float](repeating: 1, count: dims.prefix(rank).reduce(1, *))
guard aneforge_set(model, 0, values, values.count) == 0, aneforge_run(model) == 0 else {
    fatalError(String(cString: aneforge_last_error()))
}
print("ran on", String(cString: aneforge_placement(model)))

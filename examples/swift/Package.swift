// swift-tools-version:5.9
// Compiled models from Swift. Install the library first: `cargo xtask capi PREFIX`, with PREFIX where pkg-config looks.
import PackageDescription

let package = Package(
    name: "AneForgeExample",
    platforms: [.macOS(.v14)],
    targets: [
        .systemLibrary(name: "CAneForge", pkgConfig: "aneforge"),
        .executableTarget(name: "run", dependencies: ["CAneForge"]),
    ]
)

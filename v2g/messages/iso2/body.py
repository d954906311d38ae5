"""The 34 messages of ISO 15118-2:2014 (namespace MsgBody), in the order of a session.

Each message's element replaces BodyElement in the Body. Certificates are DER, times seconds
since 1970.
"""

from __future__ import annotations

from v2g.exi.schema import ComplexType, Namespace, attribute, element, ref
from v2g.exi.simple import BOOLEAN, ID, LONG, SHORT, UNSIGNED_SHORT
from v2g.messages.iso2.datatypes import (
    EMAID,
    AC_EVSEStatus,
    CertificateChain,
    ChargeProgress,
    ChargeService,
    ChargingProfile,
    ChargingSession,
    ContractSignatureEncryptedPrivateKey,
    DC_EVSEStatus,
    DC_EVStatus,
    DiffieHellmanPublickey,
    EnergyTransferMode,
    EVChargeParameter,
    EVPowerDeliveryParameter,
    EVSEChargeParameter,
    EVSEProcessing,
    EVSEStatus,
    ListOfRootCertificateIDs,
    MeterInfo,
    PaymentOption,
    PaymentOptionList,
    PhysicalValue,
    ResponseCode,
    SASchedules,
    SelectedServiceList,
    ServiceCategory,
    ServiceList,
    ServiceParameterList,
    certificate,
    charge_progress,
    charging_session,
    emaid,
    energy_transfer_mode,
    evcc_id,
    evse_id,
    evse_processing,
    gen_challenge,
    payment_option,
    response_code,
    said,
    service_category,
    service_id,
    service_scope,
    session_id,
)

MSG_BODY = Namespace("urn:iso:15118:2:2013:MsgBody", "v2gci_b", attributes_qualified=True)


class BodyBase(ComplexType, ns=MSG_BODY, abstract=True, element="BodyElement"):
    """Base of all messages, head of the BodyElement group."""


class Body(ComplexType, ns=MSG_BODY):
    """Holds one message; the schema allows none at all."""

    BodyElement: BodyBase | None = element(ref(BodyBase), default=None, kw_only=False)


# Session ----------------------------------------------------------------------------------------


class SessionSetupReq(BodyBase, substitutes=BodyBase):
    """EVCCID is the vehicle's MAC address."""

    EVCCID: bytes = element(evcc_id)


class SessionSetupRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)
    EVSEID: str = element(evse_id)
    EVSETimeStamp: int | None = element(LONG, default=None)


class SessionStopReq(BodyBase, substitutes=BodyBase):
    ChargingSession: ChargingSession = element(charging_session)


class SessionStopRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)


# Services and payment ---------------------------------------------------------------------------


class ServiceDiscoveryReq(BodyBase, substitutes=BodyBase):
    ServiceScope: str | None = element(service_scope, default=None)
    ServiceCategory: ServiceCategory | None = element(service_category, default=None)


class ServiceDiscoveryRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)
    PaymentOptionList: PaymentOptionList = element(PaymentOptionList)
    ChargeService: ChargeService = element(ChargeService)
    ServiceList: ServiceList | None = element(ServiceList, default=None)


class ServiceDetailReq(BodyBase, substitutes=BodyBase):
    ServiceID: int = element(service_id)


class ServiceDetailRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)
    ServiceID: int = element(service_id)
    ServiceParameterList: ServiceParameterList | None = element(ServiceParameterList, default=None)


class PaymentServiceSelectionReq(BodyBase, substitutes=BodyBase):
    SelectedPaymentOption: PaymentOption = element(payment_option)
    SelectedServiceList: SelectedServiceList = element(SelectedServiceList)


class PaymentServiceSelectionRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)


class CertificateInstallationReq(BodyBase, substitutes=BodyBase):
    """Signed with the key of OEMProvisioningCert."""

    OEMProvisioningCert: bytes = element(certificate)
    ListOfRootCertificateIDs: ListOfRootCertificateIDs = element(ListOfRootCertificateIDs)
    Id: str = attribute(ID)


class CertificateInstallationRes(BodyBase, substitutes=BodyBase):
    """The contract's chain, encrypted key, public key and eMAID, signed by the CPS."""

    ResponseCode: ResponseCode = element(response_code)
    SAProvisioningCertificateChain: CertificateChain = element(CertificateChain)
    ContractSignatureCertChain: CertificateChain = element(CertificateChain)
    ContractSignatureEncryptedPrivateKey: ContractSignatureEncryptedPrivateKey = element(
        ContractSignatureEncryptedPrivateKey
    )
    DHpublickey: DiffieHellmanPublickey = element(DiffieHellmanPublickey)
    eMAID: EMAID = element(EMAID)


class CertificateUpdateReq(BodyBase, substitutes=BodyBase):
    """Signed with the key of the contract that is to be replaced."""

    ContractSignatureCertChain: CertificateChain = element(CertificateChain)
    eMAID: str = element(emaid)
    ListOfRootCertificateIDs: ListOfRootCertificateIDs = element(ListOfRootCertificateIDs)
    Id: str = attribute(ID)


class CertificateUpdateRes(BodyBase, substitutes=BodyBase):
    """As CertificateInstallationRes; RetryCounter in days."""

    ResponseCode: ResponseCode = element(response_code)
    SAProvisioningCertificateChain: CertificateChain = element(CertificateChain)
    ContractSignatureCertChain: CertificateChain = element(CertificateChain)
    ContractSignatureEncryptedPrivateKey: ContractSignatureEncryptedPrivateKey = element(
        ContractSignatureEncryptedPrivateKey
    )
    DHpublickey: DiffieHellmanPublickey = element(DiffieHellmanPublickey)
    eMAID: EMAID = element(EMAID)
    RetryCounter: int | None = element(SHORT, default=None)


class PaymentDetailsReq(BodyBase, substitutes=BodyBase):
    eMAID: str = element(emaid)
    ContractSignatureCertChain: CertificateChain = element(CertificateChain)


class PaymentDetailsRes(BodyBase, substitutes=BodyBase):
    """GenChallenge, 16 octets, comes back signed in AuthorizationReq."""

    ResponseCode: ResponseCode = element(response_code)
    GenChallenge: bytes = element(gen_challenge)
    EVSETimeStamp: int = element(LONG)


class AuthorizationReq(BodyBase, substitutes=BodyBase):
    GenChallenge: bytes | None = element(gen_challenge, default=None)
    Id: str | None = attribute(ID, default=None)


class AuthorizationRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)
    EVSEProcessing: EVSEProcessing = element(evse_processing)


# Charging ---------------------------------------------------------------------------------------


class ChargeParameterDiscoveryReq(BodyBase, substitutes=BodyBase):
    MaxEntriesSAScheduleTuple: int | None = element(UNSIGNED_SHORT, default=None)
    RequestedEnergyTransferMode: EnergyTransferMode = element(energy_transfer_mode)
    EVChargeParameter: EVChargeParameter = element(ref(EVChargeParameter))


class ChargeParameterDiscoveryRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)
    EVSEProcessing: EVSEProcessing = element(evse_processing)
    SASchedules: SASchedules | None = element(ref(SASchedules), default=None)
    EVSEChargeParameter: EVSEChargeParameter = element(ref(EVSEChargeParameter))


class PowerDeliveryReq(BodyBase, substitutes=BodyBase):
    ChargeProgress: ChargeProgress = element(charge_progress)
    SAScheduleTupleID: int = element(said)
    ChargingProfile: ChargingProfile | None = element(ChargingProfile, default=None)
    EVPowerDeliveryParameter: EVPowerDeliveryParameter | None = element(
        ref(EVPowerDeliveryParameter), default=None
    )


class PowerDeliveryRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)
    EVSEStatus: EVSEStatus = element(ref(EVSEStatus))


class MeteringReceiptReq(BodyBase, substitutes=BodyBase):
    """The vehicle confirms a meter reading; signed with the contract key."""

    SessionID: bytes = element(session_id)
    SAScheduleTupleID: int | None = element(said, default=None)
    MeterInfo: MeterInfo = element(MeterInfo)
    Id: str | None = attribute(ID, default=None)


class MeteringReceiptRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)
    EVSEStatus: EVSEStatus = element(ref(EVSEStatus))


# Charging, AC -----------------------------------------------------------------------------------


class ChargingStatusReq(BodyBase, substitutes=BodyBase):
    """Has no content."""


class ChargingStatusRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)
    EVSEID: str = element(evse_id)
    SAScheduleTupleID: int = element(said)
    EVSEMaxCurrent: PhysicalValue | None = element(PhysicalValue, default=None)
    MeterInfo: MeterInfo | None = element(MeterInfo, default=None)
    ReceiptRequired: bool | None = element(BOOLEAN, default=None)
    AC_EVSEStatus: AC_EVSEStatus = element(AC_EVSEStatus)


# Charging, DC -----------------------------------------------------------------------------------


class CableCheckReq(BodyBase, substitutes=BodyBase):
    DC_EVStatus: DC_EVStatus = element(DC_EVStatus)


class CableCheckRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)
    DC_EVSEStatus: DC_EVSEStatus = element(DC_EVSEStatus)
    EVSEProcessing: EVSEProcessing = element(evse_processing)


class PreChargeReq(BodyBase, substitutes=BodyBase):
    DC_EVStatus: DC_EVStatus = element(DC_EVStatus)
    EVTargetVoltage: PhysicalValue = element(PhysicalValue)
    EVTargetCurrent: PhysicalValue = element(PhysicalValue)


class PreChargeRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)
    DC_EVSEStatus: DC_EVSEStatus = element(DC_EVSEStatus)
    EVSEPresentVoltage: PhysicalValue = element(PhysicalValue)


class CurrentDemandReq(BodyBase, substitutes=BodyBase):
    DC_EVStatus: DC_EVStatus = element(DC_EVStatus)
    EVTargetCurrent: PhysicalValue = element(PhysicalValue)
    EVMaximumVoltageLimit: PhysicalValue | None = element(PhysicalValue, default=None)
    EVMaximumCurrentLimit: PhysicalValue | None = element(PhysicalValue, default=None)
    EVMaximumPowerLimit: PhysicalValue | None = element(PhysicalValue, default=None)
    BulkChargingComplete: bool | None = element(BOOLEAN, default=None)
    ChargingComplete: bool = element(BOOLEAN)
    RemainingTimeToFullSoC: PhysicalValue | None = element(PhysicalValue, default=None)
    RemainingTimeToBulkSoC: PhysicalValue | None = element(PhysicalValue, default=None)
    EVTargetVoltage: PhysicalValue = element(PhysicalValue)


class CurrentDemandRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)
    DC_EVSEStatus: DC_EVSEStatus = element(DC_EVSEStatus)
    EVSEPresentVoltage: PhysicalValue = element(PhysicalValue)
    EVSEPresentCurrent: PhysicalValue = element(PhysicalValue)
    EVSECurrentLimitAchieved: bool = element(BOOLEAN)
    EVSEVoltageLimitAchieved: bool = element(BOOLEAN)
    EVSEPowerLimitAchieved: bool = element(BOOLEAN)
    EVSEMaximumVoltageLimit: PhysicalValue | None = element(PhysicalValue, default=None)
    EVSEMaximumCurrentLimit: PhysicalValue | None = element(PhysicalValue, default=None)
    EVSEMaximumPowerLimit: PhysicalValue | None = element(PhysicalValue, default=None)
    EVSEID: str = element(evse_id)
    SAScheduleTupleID: int = element(said)
    MeterInfo: MeterInfo | None = element(MeterInfo, default=None)
    ReceiptRequired: bool | None = element(BOOLEAN, default=None)


class WeldingDetectionReq(BodyBase, substitutes=BodyBase):
    DC_EVStatus: DC_EVStatus = element(DC_EVStatus)


class WeldingDetectionRes(BodyBase, substitutes=BodyBase):
    ResponseCode: ResponseCode = element(response_code)
    DC_EVSEStatus: DC_EVSEStatus = element(DC_EVSEStatus)
    EVSEPresentVoltage: PhysicalValue = element(PhysicalValue)
